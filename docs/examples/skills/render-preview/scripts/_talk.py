"""Talking to whoever called the tool while the script runs: progress, log messages, questions.

Each message is one line of JSON-RPC on standard output; answers come as lines on standard input, after the arguments.
"""

import itertools
import json
import sys

_ids = itertools.count(1)


class Refused(Exception):
    """The question was not answered: the client cannot be asked, or said that something is wrong."""


def arguments():
    """The tool's arguments: the first line."""
    return json.loads(sys.stdin.readline())


def progress(done, total=None, message=None):
    """How far the work is; `done` must grow from call to call."""
    params = {"progress": done, "total": total, "message": message}
    _say(method="notifications/progress", params={key: value for key, value in params.items() if value is not None})


def log(level, data, logger=None):
    """A log message: level debug, info, notice, warning, error, critical, alert or emergency; data any JSON value."""
    params = {"level": level, "data": data}
    _say(method="notifications/message", params={**params, "logger": logger} if logger else params)


def ask(method, params):
    """Asks the client (`elicitation/create`, `sampling/createMessage`, `roots/list`) and waits for its answer."""
    number = next(_ids)
    _say(id=number, method=method, params=params)
    for line in sys.stdin:
        answer = json.loads(line)
        if answer["id"] == number:
            if "error" in answer:
                raise Refused(answer["error"]["message"])
            return answer["result"]
    raise Refused("the call has ended")


def confirm(question):
    """Asks the user a question of yes or no."""
    schema = {"type": "object", "properties": {"yes": {"type": "boolean", "title": question}}, "required": ["yes"]}
    answer = ask("elicitation/create", {"message": question, "requestedSchema": schema})
    return answer["action"] == "accept" and answer.get("content", {}).get("yes") is True


def result(value):
    """The end: the tool's structured result."""
    print(json.dumps(value), flush=True)


def _say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
