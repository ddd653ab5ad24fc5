import _ask


def main(arguments):
    name = arguments.get("filename", "the file")
    answer = _ask.ask("confirm", _ask.form(f"Delete {name}?", confirm="boolean"))
    return f"Deleted {name}." if answer["action"] == "accept" else f"Kept {name}."


_ask.run(main)
