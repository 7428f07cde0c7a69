"""A proxy between a device and its server, on loopback, that can be unkind."""

import contextlib
import socket
import threading


class Proxy:
  """Carries bytes to wherever `port` is at the time, until told otherwise."""

  def __init__(self, port):
    self.target = port
    self.is_stalled = False  # nothing is carried, and nobody is told
    self.bytes_left = None  # down, and then the connection is cut
    self._sockets = []
    self._listening = socket.create_server(("127.0.0.1", 0))
    self.port = self._listening.getsockname()[1]
    self._thread = threading.Thread(target=self._accept, daemon=True)
    self._thread.start()

  def _accept(self):
    with contextlib.suppress(OSError):
      while True:
        device, _ = self._listening.accept()
        try:
          server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
          device.close()
          continue
        self._sockets += [device, server]
        for ends in ((device, server, False), (server, device, True)):
          threading.Thread(target=self._carry, args=ends, daemon=True).start()

  def _carry(self, source, target, is_down):
    with contextlib.suppress(OSError):
      while data := source.recv(4096):
        if self.is_stalled:
          continue
        is_short = is_down and self.bytes_left is not None
        target.sendall(data[: self.bytes_left] if is_short else data)
        if is_short:
          self.bytes_left = max(self.bytes_left - len(data), 0) or None
          if self.bytes_left is None:
            break
    self._end(source, target)

  def _end(self, *sockets):
    for end in sockets:
      with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

  def cut(self):
    """Every connection breaks off."""
    sockets, self._sockets = self._sockets, []
    self._end(*sockets)
    for end in sockets:
      end.close()

  def close(self):
    self._listening.shutdown(socket.SHUT_RDWR)
    self._listening.close()
    self._thread.join(5)
    self.cut()
