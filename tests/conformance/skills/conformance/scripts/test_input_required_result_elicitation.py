import _ask


def main(_arguments):
    answer = _ask.ask("user_name", _ask.form("What is your name?", name="string"))
    return f"Hello, {_ask.content(answer, 'name')}!"


_ask.run(main)
