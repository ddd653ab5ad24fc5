import _ask


def main(_arguments):
    answers = _ask.ask_all(first=_ask.form("The first?", value="string"), second=_ask.form("The second?", value="string"))
    return f"{len(answers)} answers"


_ask.run(main)
