"""Find the topics of a text that was written by them: each document is of one topic."""

import os
import pickle
import random
import time

from gensim.corpora import Dictionary
from gensim.models import LdaModel, LsiModel

from nimbus_hub.distributed import checkpoint_path, output_path

TOPICS = (
    ["river", "mountain", "forest", "lake", "valley", "stream", "glacier", "meadow"],
    ["market", "price", "stock", "trade", "bank", "profit", "invest", "credit"],
    ["cell", "protein", "gene", "enzyme", "tissue", "organ", "virus", "immune"],
)
PASSES = 5

source = random.Random(7)
texts = [[source.choice(TOPICS[n % 3]) for _ in range(30)] for n in range(600)]
words = Dictionary(texts)
corpus = [words.doc2bow(text) for text in texts]

# As many topics as words: nothing is left out where parts are merged.
lsi = LsiModel(corpus, num_topics=24, id2word=words, chunksize=100, random_seed=1)
print(f"first step {time.time()}", flush=True)
print("singular=" + ",".join(f"{value:.6f}" for value in lsi.projection.s))

checkpoint = checkpoint_path("topics.lda")
lda = LdaModel(
    num_topics=3,
    id2word=words,
    chunksize=100,
    passes=1,
    update_every=0,
    random_state=1,
    eval_every=None,
)
done = 0
if checkpoint.exists():
    # A model that is loaded would train in this process alone: the new one takes the state over.
    done, lda.state, lda.num_updates = pickle.loads(checkpoint.read_bytes())
    lda.sync_state()
    print(f"resumed={done}", flush=True)
for number in range(done, PASSES):
    lda.update(corpus)
    part = checkpoint.with_suffix(".part")
    part.write_bytes(pickle.dumps((number + 1, lda.state, lda.num_updates)))
    part.replace(checkpoint)
    if "SLOW" in os.environ:
        print(f"pass {number}", flush=True)
        time.sleep(float(os.environ["SLOW"]))
found = [{word for word, _ in lda.show_topic(topic, 8)} for topic in range(3)]
pure = sum(set(topic) in found for topic in TOPICS)
print(f"pure={pure} perplexity={lda.log_perplexity(corpus):.4f} workers={lda.numworkers}")
lda.save(str(output_path("topics.lda")))
