"""Names of what the folder of a run holds, each stated once, relative to the folder."""

CONFIG = "config.json"
DATASET = "dataset.json"
CHECKPOINTS = "checkpoints"
# TensorBoard's event files.
EVENTS = "events.out.tfevents.*"
# The evaluated weights, as a model directory.
MODEL = "model"
# The description in a model directory, be it a run's or another one.
DESCRIPTION = "model.json"
MODEL_DESCRIPTION = f"{MODEL}/{DESCRIPTION}"

RESULTS = "results"
PERFORMANCE = f"{RESULTS}/performance.json"
PER_CLASS = f"{RESULTS}/per_class.csv"
PREDICTIONS = f"{RESULTS}/predictions.npz"
VAL_PREDICTIONS = f"{RESULTS}/val_predictions.npz"
LEARNING_CURVES = f"{RESULTS}/learning_curves.png"
ROBUSTNESS = f"{RESULTS}/robustness.json"
COST = f"{RESULTS}/cost.json"

# The files that a finished run has; the last one is written last.
FINISHED = (CONFIG, MODEL_DESCRIPTION, PERFORMANCE, PREDICTIONS)
