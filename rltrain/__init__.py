"""rltrain: reinforcement-learning training of language models where every number is true.

Read it in the order the data flows: `types.py` (the nouns), `protocols.py` (the seams),
`loop.py` (the loop on one screen), then the package that interests you.
"""

__version__ = "0.1.0"
