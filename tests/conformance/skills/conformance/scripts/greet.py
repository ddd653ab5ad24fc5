import _ask

_ask.run(lambda arguments: f"Hello, {arguments['name']}!")
