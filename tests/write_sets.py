#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes sets as others write them into the folder given, and sets.json with what is in them: path,
the training rows' values and labels, the names of the classes in their order unless null, and how far
a value may be off.

  write_sets.py FOLDER numpy        arrays in each format, by NumPy
  write_sets.py FOLDER pillow       class folders of images
  write_sets.py FOLDER sklearn      scikit-learn's digits and wine as tables and arrays
  write_sets.py FOLDER torchvision  what torchvision writes, and what it reads as we do

77 ("skipped") where Python does not have the package."""
import json
import os
import sys

out, writer = sys.argv[1:]
sets = []
try:
    import numpy as np
    if writer in ("pillow", "torchvision"):
        from PIL import Image
    if writer == "sklearn":
        from sklearn import datasets
    if writer == "torchvision":
        import torch
        from torchvision import datasets, utils
except ImportError as error:
    print(error)
    sys.exit(77)
rng = np.random.default_rng(7)


def note(path, values, labels, within=0.0, images=False, classes=None):
    sets.append({"path": path, "values": np.asarray(values, dtype="float64").ravel().tolist(),
                 "labels": [str(label) for label in labels], "within": within, "images": images,
                 "classes": classes})


def at(*parts):
    path = os.path.join(out, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def write_npy(folder, x, y, test):
    """Four arrays, of which the first `test` rows are the test set."""
    np.save(at(folder, "x_train.npy"), x)
    np.save(at(folder, "y_train.npy"), y)
    np.save(at(folder, "x_test.npy"), x[:test])
    np.save(at(folder, "y_test.npy"), y[:test])


def write_npz(path, save, x, y, test):
    save(at(path), train_images=x, train_labels=y, val_images=x[:3], val_labels=y[:3],
         test_images=x[:test], test_labels=y[:test])


def write_csv(folder, x, y, names, test):
    for split, rows in (("train", len(x)), ("test", test)):
        np.savetxt(at(folder, split + ".csv"), np.c_[x[:rows], y[:rows]], delimiter=",",
                   header=",".join(names + ["label"]), comments="")


IDX_CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def write_idx(path, x):
    with open(at(path), "wb") as file:
        file.write(bytes([0, 0, IDX_CODES[x.dtype.str[1:]], x.ndim]))
        np.array(x.shape, dtype=">i4").tofile(file)
        x.astype(x.dtype.newbyteorder(">")).tofile(file)


def write_idx_set(folder, x, y, test):
    """By the names that MNIST's files have."""
    for split, rows in (("train", len(x)), ("t10k", test)):
        write_idx(folder + "/%s-images-idx%d-ubyte" % (split, x.ndim), x[:rows])
        write_idx(folder + "/%s-labels-idx1-ubyte" % split, y[:rows])


def write_records(path, labels, images):
    """CIFAR's binary files: the labels of each record, and its planes."""
    np.c_[labels, images.reshape(len(images), -1)].astype("uint8").tofile(at(path))


def numpy():
    words = np.array(["cat", "\u00e4pfel", "dog"])
    for name, x, y in (
            ("u8", rng.integers(0, 256, (30, 5, 4), dtype="uint8"), rng.integers(-3, 4, 30)),
            ("f32", rng.normal(size=(30, 7)).astype("float32"), words[rng.integers(0, 3, 30)]),
            ("f16", rng.normal(size=(30, 7)).astype("float16"),
             rng.integers(0, 4, 30).astype("uint8")),
            ("be", rng.integers(-9, 9, (30, 2, 3, 5)).astype(">i4"), rng.integers(0, 4, 30) > 1)):
        names = y.astype("uint8") if y.dtype == bool else y
        write_npy("npy-" + name, x, y, 9)
        note("npy-" + name, x, names)
        for save, kind in ((np.savez, "stored"), (np.savez_compressed, "packed")):
            path = "npz-%s-%s.npz" % (name, kind)
            write_npz(path, save, x, y, 9)
            note(path, x, names)

    x, y = rng.normal(size=(20, 6)), rng.integers(1, 5, 20)
    write_csv("csv", x, y, list("abcdef"), 8)
    note("csv", x.astype("float32"), y)

    for kind in IDX_CODES:
        for shape in ((20, 6), (20, 3, 5), (20, 2, 3, 5), (20, 4, 5, 3)):
            x = rng.normal(size=shape) * 50
            if kind == "u1":
                x = abs(x)
            x, y = x.astype(kind), rng.integers(0, 10, 20, dtype="uint8")
            path = "idx-%s-%s/raw" % (kind, "x".join(map(str, shape)))
            write_idx_set(path, x, y, 7)
            last = len(shape) == 4 and shape[3] == 3 # channels
            note(path, (x.transpose(0, 3, 1, 2) if last else x).astype("float32"), y)

    x = rng.integers(0, 256, (10, 3, 32, 32), dtype="uint8")
    y = np.c_[rng.integers(0, 20, 10), rng.integers(0, 100, 10)]
    for i in range(5):
        write_records("ten/cifar-10-batches-bin/data_batch_%d.bin" % (i + 1), y[2 * i:2 * i + 2, 0] % 10,
                      x[2 * i:2 * i + 2])
    write_records("ten/cifar-10-batches-bin/test_batch.bin", y[:3, 0] % 10, x[:3])
    note("ten", x, y[:, 0] % 10)
    for split, rows in (("train", 10), ("test", 4)):
        write_records("cifar-100-binary/%s.bin" % split, y[:rows], x[:rows])
    note("cifar-100-binary", x, y[:, 1])


def pillow():
    for kind, ending, mode, within in (("png", "png", "L", 0), ("rgb", "png", "RGB", 0),
                                       ("palette", "png", "P", 0), ("jpeg", "jpg", "RGB", 2),
                                       ("grey-jpeg", "jpeg", "L", 2)):
        values, labels = [], []
        for label in ("a", "b"):
            for i in range(4):
                smooth = np.add.outer(np.arange(9) * 9, np.arange(6) * 7)[..., None]
                image = Image.fromarray((smooth + [3 * i, 50, 90]).astype("uint8"), "RGB").convert(mode)
                for split in ("train", "test"):
                    path = at(kind, split, label, "%d.%s" % (i, ending))
                    image.save(path)
                read = np.asarray(Image.open(path).convert("L" if mode == "L" else "RGB"))
                values.append(read if read.ndim == 2 else read.transpose(2, 0, 1))
                labels.append(label)
        note(kind, values, labels, within, True, ["a", "b"])


def sklearn():
    for name, names, load in (("digits", ["p%d" % i for i in range(64)], datasets.load_digits),
                              ("wine", None, datasets.load_wine)):
        data = load()
        order = rng.permutation(len(data.data)) # wine's rows lie in the order of their classes
        x, y = data.data[order], data.target[order]
        test = len(x) // 5
        for path, write in (
                (name + "-csv", lambda path: write_csv(path, x, y, names or data.feature_names, test)),
                (name + "-npy", lambda path: write_npy(path, x, y, test)),
                (name + ".npz", lambda path: write_npz(path, np.savez_compressed, x, y, test))):
            write(path)
            note(path, x.astype("float32"), y, classes=[str(c) for c in range(max(y) + 1)])


def torchvision():
    values, labels = [], []
    for label in ("zebra", "Ant", "ant"):
        for i in range(3):
            image = torch.from_numpy(rng.integers(0, 256, (3, 5, 7), dtype="uint8"))
            for split in ("train", "test"):
                utils.save_image(image / 255.0, at("saved", split, label, "%d.png" % i))
    folder = datasets.ImageFolder(os.path.join(out, "saved", "train"))
    for image, target in folder:
        values.append(np.asarray(image).transpose(2, 0, 1))
        labels.append(folder.classes[target])
    note("saved", values, labels, images=True, classes=folder.classes)

    x = rng.integers(0, 256, (30, 28, 28), dtype="uint8")
    y = np.arange(30, dtype="uint8") % 10
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        write_idx_set("%s/%s/raw" % (name.lower(), name), x, y, 9)
        read = getattr(datasets, name)(os.path.join(out, name.lower()), download=False)
        note(name.lower(), read.data.numpy(), read.targets.numpy(), classes=[str(c) for c in range(10)])


globals()[writer]()
with open(at("sets.json"), "w") as file:
    json.dump(sets, file)
