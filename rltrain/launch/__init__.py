"""Starts and supervises the processes of a run, and does what needs several of them at once.

`training` puts a whole run together (`resume` opens its directory, `online` and `offline` are its
stages, `attempts` counts its seconds); `models` builds or finds policy and judge, `servers` starts
the engines, `evaluation` measures a served policy. `supervise` starts again what dies: `members`
are what it watches, `children` the processes, `heartbeat` their signs of life, `budget` its limits.
"""
