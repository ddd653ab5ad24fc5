import _ask


def main(_arguments):
    return _ask.ask("capital_question", _ask.sample("What is the capital of France?"))["content"]["text"]


_ask.run(main)
