"""convc's tuner against MetaSchedule, TVM's own, on the same layers: the best time that each finds, and the time it takes."""
