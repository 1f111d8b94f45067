"""Names of the files in a run's folder, relative to the folder, each stated once."""

# The file that the process of the run locks.
LOCK = ".lock"
CONFIG = "config.json"
DATASET = "dataset.json"
CHECKPOINTS = "checkpoints"
# Checkpoints that could not be read when the run was resumed.
DAMAGED_CHECKPOINTS = "damaged_checkpoints"
# TensorBoard's event files.
EVENTS = "events.out.tfevents.*"
# The evaluated weights, as a model directory.
MODEL = "model"
# The description in any model directory.
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

# Files that a finished run has; the last of them is written last.
FINISHED = (CONFIG, MODEL_DESCRIPTION, PERFORMANCE, PREDICTIONS)
