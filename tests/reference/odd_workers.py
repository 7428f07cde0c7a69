"""Workers of a pool that behave as their tasks say."""

import os
import signal
import time
from multiprocessing.connection import Connection

from ojd.compare.pool import Moved, Stopped

KILL = ("die", signal.SIGKILL)  # a task after which there is no worker


def serve(fd):
  """Answers (what, argument) by what and its own number."""
  with Connection(fd) as connection:
    while (task := connection.recv()) is not None:
      what, argument = task
      if what == "die":
        os.kill(os.getpid(), argument)
      elif what == "leave":
        os._exit(argument)
      elif what == "move":
        for i in range(argument):
          connection.send(Moved(i))
      elif what == "meet":
        mine, others = argument
        mine.touch()
        while not others.exists():
          time.sleep(0.01)
      elif what == "hang":
        argument.write_text(str(os.getpid()))
        time.sleep(100)
      elif what == "wait":
        connection.poll(100)
        connection.send(Stopped())
        continue
      connection.send((what, os.getpid()))
