"""Headers in which what the log says of a request travels; clients cannot set them, the listener removes theirs."""

CONFIG_HEADER = "x-ember-config"
EXPERIMENT_HEADER = "x-ember-experiment"
UNIT_HEADER = "x-ember-unit"
MODEL_HEADER = "x-ember-model"
VERSION_HEADER = "x-ember-version"
METADATA_HEADER = "x-ember-metadata"  # asks a handler for metadata in place of a prediction
COPY_HEADER = "x-ember-copy"
INTERNAL_HEADERS = (
    CONFIG_HEADER,
    EXPERIMENT_HEADER,
    UNIT_HEADER,
    MODEL_HEADER,
    VERSION_HEADER,
    COPY_HEADER,
    METADATA_HEADER,
)
