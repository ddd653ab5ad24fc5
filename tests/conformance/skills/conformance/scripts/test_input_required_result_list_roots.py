import _ask


def main(_arguments):
    roots = _ask.ask("client_roots", _ask.ROOTS)["roots"]
    return "The roots are " + ", ".join(root["uri"] for root in roots)


_ask.run(main)
