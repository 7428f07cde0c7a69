"""The messages between a server and a device, and a simulated network.

Weights, messages and the wire format are numpy alone; nothing here opens a
socket, reads a clock or imports torch. `ojd.edge` sends the messages over
WebSockets, `ojd.run` over a network that is simulated in stream time.
"""
