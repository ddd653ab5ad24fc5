import _ask


def main(_arguments):
    _ask.say(method="notifications/progress", params={"progress": 1, "total": 2})
    answer = _ask.ask("confirm", _ask.form("Go on?", ok="boolean"))
    return f"The user said: {answer['action']}"


_ask.run(main)
