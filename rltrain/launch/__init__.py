"""Starts and supervises the processes of a run, and does what needs several of them at once.

`models` builds or finds policy and judge, `servers` starts the engines, `children` the learner and
the workers, `evaluation` measures a served policy, `training` puts a whole run together.
"""
