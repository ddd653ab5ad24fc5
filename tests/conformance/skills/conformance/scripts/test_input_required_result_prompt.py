import _ask


def main(_arguments):
    answer = _ask.ask("user_context", _ask.form("What context should the prompt use?", context="string"))
    return f"The context is: {_ask.content(answer, 'context')}"


_ask.run(main)
