"""A server that trains and a device that predicts.

The two ends of the protocol have no sockets and no clocks: `session` and
`registry` at the server, `device` at the device. `server` and `client` add
threads and WebSockets; `training` and `player` compute. The messages are those
of `ojd.network`. No module imports torch, but a server's teacher may.
"""
