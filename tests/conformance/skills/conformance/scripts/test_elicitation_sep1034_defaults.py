import json

import _ask

FIELDS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}


def main(_arguments):
    answer = _ask.ask("form", _ask.form("Is this right?", **FIELDS))
    return f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content'))}"


_ask.run(main)
