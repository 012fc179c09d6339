"""Learning from answers that are already there: SFT, DPO and reward models, trained by TRL.

rollouts -> select -> rows (JSON lines) -> tokens -> TRL's trainer -> the run's own checkpoints

`select` chooses pairs or answers from a run's rollouts · `rows` is the file format · `tokens` turns
rows into ids, the sampled ones where they are known · `trainers` builds TRL's trainer from the
run's config. Nothing here optimises anything itself.
"""
