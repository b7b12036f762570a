"""A shell on a terminal of its own: the setup line is entered, then words are typed and Tab is pressed. Prints what the shell shows
after that, once all that is expected was shown; ends with 1 if it was not within 30 s.

    press-tab.py SETUP TYPED EXPECTED[,EXPECTED...] -- SHELL ARG...
"""
import os
import pty
import re
import select
import signal
import sys

at = sys.argv.index("--")
setup, typed, expected = sys.argv[1:at]
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])


def read_until(words):
    """Text without what moves the cursor."""
    text = ""
    while not all(word in text for word in words):
        if not select.select([terminal], [], [], 30)[0]:
            break
        data = os.read(terminal, 65536).decode(errors="replace")
        text += re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])", "", data)
    return text


os.write(terminal, (setup + "; echo rea''dy\n").encode())
read_until(["ready\r\n"])
os.write(terminal, (typed + "\t").encode())
shown = read_until(expected.split(","))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(shown)
sys.exit(0 if all(word in shown for word in expected.split(",")) else 1)
