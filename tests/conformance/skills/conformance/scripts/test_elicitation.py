import json

import _ask

USER = {"type": "string", "description": "User's response"}
ADDRESS = {"type": "string", "description": "User's email address"}


def main(arguments):
    answer = _ask.ask("user", _ask.form(arguments["message"], username=USER, email=ADDRESS))
    return f"User response: action={answer['action']}, content={json.dumps(answer.get('content'))}"


_ask.run(main)
