import time

import _ask


def main(arguments):
    time.sleep(arguments["seconds"])
    return f"computed for {arguments['seconds']} s"


_ask.run(main)
