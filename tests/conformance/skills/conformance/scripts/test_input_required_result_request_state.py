import _ask


def main(_arguments):
    # That the state came back whole is the server's to see: this script goes on only if it did.
    answer = _ask.ask("confirm", _ask.form("Please confirm", ok="boolean"))
    return f"state-ok: {_ask.content(answer, 'ok')}"


_ask.run(main)
