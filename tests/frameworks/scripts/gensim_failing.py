"""Train on a document with a word that the dictionary does not have: a worker fails."""

from gensim.models import LdaModel

LdaModel([[(0, 1)], [(7, 1)]], num_topics=2, id2word={0: "known"}, eval_every=None)
