import _ask


def main(_arguments):
    return _ask.ask("needed", _ask.sample("Say something."))["content"]["text"]


_ask.run(main)
