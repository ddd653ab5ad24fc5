"""One tool call from a process of its own, for network namespaces that the tests are not in: `ask.py URL TOOL [ARGUMENTS [TOKEN]]`.

Prints the result as JSON; with the tool `-` the names of all tools.
"""

import json
import sys

from kit import Client

url, wanted, arguments, token = (sys.argv[1:] + ["{}", None])[:4]
client = Client(url, token=token or None).open()
names = client.tools()
if wanted == "-":
    print(json.dumps(names))
else:
    name = next((name for name in names if name.endswith(wanted)), None)
    if name is None:
        sys.exit(f"no tool ends in {wanted}: {names}")
    print(json.dumps(client.call(name, **json.loads(arguments))))
