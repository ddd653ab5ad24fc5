import _ask


def main(arguments):
    answer = _ask.ask("prompt", _ask.sample(arguments["prompt"]))
    return f"LLM response: {answer['content']['text']}"


_ask.run(main)
