"""Benchmarks: convc beside its peers on whole models, and layer by layer against the machine's limit.

    python -m benchmarks.models --vs onnxruntime,openvino,mnn,ncnn --threads 1,2
    python -m benchmarks.layers --vs onnxruntime --classes 3x3s1,dw3
    python -m benchmarks.layer_choice                                  # is the algorithm chosen by estimate the fastest?
    python -m benchmarks.tune_layers                                   # records of the layers, for tuning_logs/
    python -m benchmarks.metaschedule                                  # convc's tuner against TVM's own; needs xgboost
    python -m benchmarks.zoo                                           # export the models first; needs torch

No file in here is part of the installed package.
"""
