import _ask


def main(_arguments):
    name = _ask.content(_ask.ask("step1", _ask.form("Step 1: What is your name?", name="string")), "name")
    color = _ask.content(_ask.ask("step2", _ask.form("Step 2: What is your favorite color?", color="string")), "color")
    return f"{name} likes {color}."


_ask.run(main)
