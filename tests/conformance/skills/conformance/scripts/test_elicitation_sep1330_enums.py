import json

import _ask

OPTIONS = ["option1", "option2", "option3"]


def titled(word):
    titles = ("First", "Second", "Third")
    return [{"const": f"value{n}", "title": f"{title} {word}"} for n, title in enumerate(titles, 1)]


FIELDS = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": titled("Option")},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
}


def main(_arguments):
    answer = _ask.ask("form", _ask.form("Which ones?", **FIELDS))
    return f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content'))}"


_ask.run(main)
