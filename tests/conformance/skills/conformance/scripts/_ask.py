"""Asking the client: one question or several at once, each with a key, which is its id on the wire."""

import json
import sys


class Refused(Exception):
    """The client cannot be asked this."""


def arguments():
    return json.loads(sys.stdin.readline())


def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def ask_all(**questions):
    """The answers by key, of questions given as (method, params); what the client cannot be asked is missing."""
    requests = [{"jsonrpc": "2.0", "id": key, "method": method, "params": params} for key, (method, params) in questions.items()]
    # In one line, they are put to the client in one go.
    print(json.dumps(requests), flush=True)
    answers, open_keys = {}, set(questions)
    while open_keys:
        answer = json.loads(sys.stdin.readline())
        open_keys.discard(answer["id"])
        if "result" in answer:
            answers[answer["id"]] = answer["result"]
    return answers


def ask(key, question):
    answers = ask_all(**{key: question})
    if key not in answers:
        raise Refused(question[0])
    return answers[key]


def form(message, **properties):
    """A question for the user; a property is a type or a whole schema, and all are required."""
    schemas = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in properties.items()}
    schema = {"type": "object", "properties": schemas, "required": list(schemas)}
    return "elicitation/create", {"message": message, "requestedSchema": schema}


def sample(text, tokens=100):
    """A question for the model."""
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return "sampling/createMessage", {"messages": messages, "maxTokens": tokens}


ROOTS = ("roots/list", {})


def content(answer, name):
    """A field of a form that was filled in."""
    return (answer.get("content") or {}).get(name)


def end(text, failed=False):
    """The result: a text."""
    result = {"content": [{"type": "text", "text": text}]}
    say(result={**result, "isError": True} if failed else result)


def run(main):
    try:
        end(main(arguments()))
    except Refused as refused:
        end(f"the client cannot be asked: {refused}", failed=True)
