"""Every knob with its unit and its reason; the other configs import this one and override.

Override on the command line: --config.outer.steps=800 --config.data.path=log.parquet
"""

from ml_collections import ConfigDict

from diet_jax.types import Config


def get_config() -> Config:
    c: Config = ConfigDict()
    # Of all random choices. Same seed, same device kind: the same memory, bit for bit; on GPUs with
    # XLA_FLAGS=--xla_gpu_deterministic_ops=true, at a price (docs/scale.md).
    c.seed = 0
    # A device's memory for the rows that the teacher, or the full-data reference, is trained on.
    # If they need more they stay in their files and are fed in chunks, with the same result but for
    # rounding.
    c.resident_mebibytes = 1024

    c.data = ConfigDict()
    # table (files of your own) | movielens | criteo | avazu | kuairand | taobao | mind | yambda |
    c.data.source = "movielens"  # amazon | sessions | simulator
    c.data.name = "latest-small"  # which one of its kind; table: a name for the report
    c.data.path = ""  # file, folder or pattern; empty: the bundled log, or what tfds prepared
    c.data.tfds_dir = ""  # data_dir of tensorflow-datasets; empty: its default
    c.data.options = ConfigDict()  # of the source: see read() in diet_jax/data/adapters
    c.data.min_count = 1  # a value gets its own table row once seen this often; before: "unknown"
    c.data.max_rejected = 0.01  # a larger share of rows that cannot be used is an error
    c.data.cache = ""  # where prepared logs are kept; empty: $DIET_JAX_CACHE or ~/.cache/diet_jax
    c.data.threshold = 4.0  # a rating of at least this is a positive label; < 0: the label is 0/1
    # What follows is for source=table: which column is what.
    c.data.label = "label"
    # Columns that are labels, too: a row is one row for each label, and a field `task` says which.
    c.data.more_labels = ()
    c.data.time = "time"
    c.data.user = "user"
    c.data.weight = ""  # sample weights, positive
    c.data.categorical = ("user", "item")
    c.data.multi = ConfigDict()  # multi-valued fields: column -> values kept
    c.data.separator = "|"  # between their values, where they are text and no lists
    c.data.hashed = ConfigDict()  # column -> table rows that its values share; else a vocabulary
    c.data.derived = ()  # more fields: hour, weekday, day (UTC), count:COLUMN (rows so far, log2)
    c.data.dense = ()
    c.data.scale = ConfigDict()  # by column: standard | log | quantile | none
    c.data.scale.default = "standard"
    c.data.missing = ConfigDict()  # column -> what stands for a missing number; else: rejected
    c.data.history = ""  # the field whose last positive values a row carries; empty: none
    c.data.history_length = 20

    c.stages = ConfigDict()
    c.stages.count = 8  # stages of equal counts; the last one is only ever tested on
    c.stages.fractions = ()  # shares in time order instead, for example (0.9, 0.1)
    # hour | day | week (UTC) instead: a run in the same workdir goes on when the log has grown
    c.stages.interval = ""

    c.memory = ConfigDict()
    c.memory.rate = 0.02  # slots per row of the log so far
    # Slots that it may have at most, however long the stream; 0: as many as the rate says. Once it
    # is full, a stage's new slots take the places of those that matter least to that stage.
    c.memory.budget = 0
    # Real rows that a slot mixes, each with a weight of its own: the slot's embeddings are their
    # weighted means. A trial takes as many steps as with 1; the memory's bytes grow as much.
    # On MovieLens 4 was much better, on a simulated log little; see docs/research.md.
    c.memory.mix = 1
    # Which rows share a slot: those that the teacher sees alike, by their embeddings and labels; or
    c.memory.mix_by = "teacher"  # label: those of like labels alone
    # Of them, those that a slot brings along; 0: all. The others come from slots that are alike, so
    # that the memory names fewer rows: no gain where it was tried, see docs/research.md.
    c.memory.own = 0
    # Distil anew at every stage, from the rows of that stage or of the stream so far: stage |
    c.memory.scratch = ""  # stream. Empty: the memory goes on, which is cheaper.

    c.inner = ConfigDict()  # how a model is trained on the memory, in distillation as in evaluation
    # The proxies that the memory is distilled with; the outer loss is their mean. LR beside DeepFM
    # makes a memory from which LR learns as much as deep models do, which they do not from the log.
    c.inner.archs = ("DeepFM",)
    # Each outer step trains one proxy, in turn, at the price of one; else all. Influence is always
    # the mean over all.
    c.inner.rotate = False
    c.inner.hidden = (32,)  # widths of their towers; a wider one costs more and was not better
    c.inner.dim = 8  # embedding columns, of every model
    c.inner.init_scale = 0.01  # standard deviation of embeddings at the start
    # sgd | adam | adamw | lazy_adam | adagrad | rowwise_adagrad
    c.inner.optimizer = "adam"
    # By proxy, `default` for others: --config.inner.lr.FM=0.04 names one more, here as in eval.
    c.inner.lr = ConfigDict({"default": 1e-2, "LR": 0.16})
    c.inner.momentum = 0.9  # sgd only
    c.inner.eps_root = 1e-8  # adam*: inside the square root; 0 makes meta-gradients NaN
    c.inner.decay = 1e-2  # adamw only
    # By proxy: weight of the mean squared length of the embeddings of a batch.
    c.inner.l2 = ConfigDict({"default": 0.0})
    c.inner.steps = 60  # steps of one training on the memory
    c.inner.batch = 128  # slots a step
    # How it is differentiated: full | random | adaptive | implicit | one_step, see docs/metagrad.md
    c.inner.mode = "random"
    c.inner.window = 30  # random, adaptive: steps differentiated (RaT-BPTT)
    c.inner.damping = 1e-3  # implicit: added to the curvature
    c.inner.solves = 20  # implicit: steps of conjugate gradients
    c.inner.start = "fresh"  # fresh | teacher (of the stage before; needs its archs) | mixed
    c.inner.min_rows = 4096  # table rows that a compact table starts with; it doubles when full
    c.inner.mebibytes = 1024  # a device's memory for unrolled steps; above it, they are recomputed
    c.inner.offload = False  # keep states of recomputed steps in the host's memory (accelerators)
    # Differentiated steps that are compiled as one turn of a loop. On accelerators 4 makes steps
    # quicker, and compiling more than twice as long: for long runs, see docs/metagrad.md.
    c.inner.unroll = 1
    c.inner.mixed = False  # forward-over-reverse second derivatives: less memory on accelerators
    c.inner.compute = "float32"  # bfloat16: forward passes of the proxy in it

    c.outer = ConfigDict()  # how the memory is learned
    # loss: what a model trained on the memory loses on real rows. Of rivals, see matching.py:
    c.outer.objective = "loss"  # gradient | distribution | trajectory | kernel
    # of: label_logit, log_weight, dense, mix (the weights of memory.mix > 1), rates (what each
    # proxy's inner.lr is multiplied by, for the table and for the net)
    c.outer.learn = ("label_logit", "log_weight", "mix")
    c.outer.steps = 400  # outer steps a stage
    c.outer.first_factor = 1.0  # the first stage gets this many times more: all builds on it
    c.outer.clip = 0.0  # cut a gradient to this times the running mean of its norm; 0: never
    c.outer.lr = 4e-2  # Adam on logits of labels and logarithms of weights
    c.outer.schedule = "cosine"  # of it over the steps of a stage, down to 0; or constant
    c.outer.trajectories = 1  # inner runs averaged in an outer step, spread over the devices
    c.outer.batch = 4096  # real rows of the outer loss, per trajectory
    # Outer target = this * label + the rest * teacher. The teacher's are free of the labels' noise.
    c.outer.label_share = 0.0
    # A field whose values were mostly unseen before (more than this share of them in the last
    # `tail` of a stage) is hidden from the outer loss, as the next stage will hide it. 1: never.
    c.outer.hide_above = 0.5
    c.outer.tail = 0.1
    c.outer.anchor = 0.8  # weight of the previous memory in the outer loss, per share of slots
    c.outer.anchor_batch = 256  # its rows, per trajectory
    c.outer.chunk = 10  # outer steps per device call; losses are recorded as often

    c.growth = ConfigDict()  # how new slots are found
    c.growth.rounds = 9  # rounds of a stage: add influential rows, re-learn, again
    c.growth.final_share = 0.4  # share of the outer steps that follow the last round
    c.growth.select = "influence"  # or a selector of diet_jax/select.py: random, herding, el2n ..
    c.growth.pool = 4096  # candidate rows scored in a round
    c.growth.block = 2048  # candidate rows scored at once: bounds memory
    c.growth.spread_field = "item"  # at most spread_cap rows of one of its values in a round,
    c.growth.spread_cap = 2  # so that a round is not filled by one item; empty field: no cap
    c.growth.max_logit = 3.0  # labels start at the teacher's logit clipped to +- this

    c.addressing = ConfigDict()  # which old slots a stage may rewrite
    c.addressing.by = "influence"  # on the stage's loss; sampled (by influence) | random
    c.addressing.share = 0.5  # of the old slots; 0.2 to 1 are alike, see docs/research.md
    # Of these, only slots whose |influence| is at least so many times the mean of all old ones.
    c.addressing.threshold = 0.0
    # Of the slots that may be written, how many may take a value of another row before each round
    # after the first, where that promises to lower the loss. It was no better, see docs/research.md
    c.addressing.swap_share = 0.0

    # The devices of all processes as a mesh, see docs/scale.md. The result does not depend on it,
    # but for rounding: sums over devices add in another order.
    c.mesh = ConfigDict()
    # Inner trajectories and seeds of trials lie along it; a divisor of outer.trajectories.
    c.mesh.trajectory = 0  # 0: as many devices as share them
    c.mesh.data = 0  # rows of full-data batches (teacher, reference); 0: all devices that are left
    c.mesh.table = 1  # rows of embedding tables, where they fit no device

    c.checkpoint = ConfigDict()  # a finished stage is always saved
    c.checkpoint.every = 10.0  # minutes between saves within a stage, see docs/scale.md; 0: none

    c.teacher = ConfigDict()  # carried along the stream
    # A memory ranks architectures as its teacher sees them. To rank them let it be several, those
    # that are best on validation rows (docs/research.md).
    c.teacher.arch = "MLP"
    c.teacher.more = ()  # architectures that answer with it: labels are the mean of their logits
    c.teacher.hidden = (64, 32)
    c.teacher.lr = 1e-3
    c.teacher.epochs = 2.0  # passes over each stage; with more it answers worse for new users
    c.teacher.first_epochs = 2.0  # passes over the first stage; a short one wants more
    c.teacher.batch = 256

    c.eval = ConfigDict()
    c.eval.on = "next"  # next: the stage after; validation: the tail of the stage (to choose knobs)
    c.eval.validation_share = 0.1  # the tail that eval.on=validation holds out of everything
    c.eval.archs = ("LR", "FM", "MLP", "DeepFM", "DCNv2")
    c.eval.hidden = (64, 32)  # widths of their towers
    c.eval.seeds = (0, 1, 2)
    c.eval.full_epochs = 3.0  # passes of the full-data reference over all rows so far
    c.eval.full_batch = 256
    # Its optimizer: adam | lazy_adam, whose steps cost what their rows touch and not the whole
    # table, for large vocabularies; the learning rates of our configs were chosen with adam.
    c.eval.full_optimizer = "adam"
    c.eval.l2 = ConfigDict()  # see inner.l2; by method and architecture, like lr
    for method in ("full", "memory", "random_hard", "random_soft"):
        c.eval.l2[method] = ConfigDict({"default": 0.0})
    c.eval.lr = ConfigDict()  # by method, then by architecture; `default` for those not named
    c.eval.lr.full = ConfigDict({"default": 1e-3})
    c.eval.lr.memory = ConfigDict({"default": 1e-2})
    c.eval.lr.random_hard = ConfigDict({"default": 1e-2})
    c.eval.lr.random_soft = ConfigDict({"default": 1e-2})

    c.lock()  # so that a config which sets a key that is not here says so
    tables = c.inner.lr, c.inner.l2, c.eval.lr, c.eval.l2  # by architecture, and others by column
    for table in (
        *tables,
        c.data.options,
        c.data.multi,
        c.data.hashed,
        c.data.scale,
        c.data.missing,
    ):
        table.unlock()
    return c
