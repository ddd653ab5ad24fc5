import _ask


def main(_arguments):
    answers = _ask.ask_all(
        user_name=_ask.form("What is your name?", name="string"),
        greeting=_ask.sample("Generate a greeting", tokens=50),
        client_roots=_ask.ROOTS,
    )
    greeting = answers["greeting"]["content"]["text"]
    roots = answers["client_roots"]["roots"]
    return f"{greeting}, {_ask.content(answers['user_name'], 'name')}, with {len(roots)} roots"


_ask.run(main)
