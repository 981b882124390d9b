#!/usr/bin/env python3
"""Times training epochs on MNIST with PyTorch, as examples/mnist_epoch.rs does with Lacuna: batch 60, Adam at 1.2e-3.

    pip install torch==2.7.1 numpy
    python scripts/mnist_epoch.py lenet_300_100|lenet_5 THREADS [EPOCHS]

Reads the files that scripts/fetch_data.sh wrote to $LACUNA_DATA (default ./data). One JSON line an epoch.
"""
import gzip, json, os, sys, time
import numpy as np, torch

model, threads, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2
torch.set_num_threads(threads)
folder = os.path.join(os.environ.get("LACUNA_DATA") or "data", "mnist")

def read(name, offset):
    path = os.path.join(folder, name)
    data = gzip.open(path + ".gz").read() if os.path.exists(path + ".gz") else open(path, "rb").read()
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=offset).copy())

x = read("train-images-idx3-ubyte", 16).reshape(-1, 784).float() / 255
y = read("train-labels-idx1-ubyte", 8).long()
nn = torch.nn
torch.manual_seed(0)
if model == "lenet_300_100":
    net = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
elif model == "lenet_5":
    x = x.view(-1, 1, 28, 28)
    net = nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
else:
    sys.exit(f"'{model}' is neither lenet_300_100 nor lenet_5")
adam = torch.optim.Adam(net.parameters(), lr=1.2e-3)
for epoch in range(epochs):
    start, total = time.perf_counter(), 0.0
    for part in torch.randperm(len(x)).split(60):
        adam.zero_grad()
        loss = nn.functional.cross_entropy(net(x[part]), y[part])
        loss.backward()
        adam.step()
        total += loss.item() * len(part)
    print(json.dumps(dict(model=model, threads=threads, epoch=epoch, seconds=round(time.perf_counter() - start, 3), loss=round(total / len(x), 5))), flush=True)
