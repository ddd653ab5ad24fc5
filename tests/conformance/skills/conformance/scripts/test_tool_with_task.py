import time

import _ask


def main(_arguments):
    name = _ask.content(_ask.ask("user_name", _ask.form("What is your name?", name="string")), "name")
    time.sleep(1)
    return f"Done for {name}."


_ask.run(main)
