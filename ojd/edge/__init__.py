"""A server that trains and a device that predicts.

Both ends of a connection are without sockets and clocks (`session` and
`registry` at the server, `device` at the device), around them are threads and
WebSockets (`server`, `client`), and behind them what computes: `training`,
`player`. The messages are those of `ojd.network`. No module imports torch; a
server's teacher may.
"""
