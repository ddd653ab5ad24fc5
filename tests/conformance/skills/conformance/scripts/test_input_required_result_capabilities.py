import _ask


def main(_arguments):
    answers = _ask.ask_all(confirm=_ask.form("Please confirm", ok="boolean"), greeting=_ask.sample("Generate a greeting"))
    return "The client answered: " + ", ".join(sorted(answers))


_ask.run(main)
