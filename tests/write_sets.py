#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes sets by NumPy's and Pillow's own writers into the folder given, and sets.json with what is
in them: path, the training rows' values and labels, and how far a value may be off."""
import json
import os
import sys

import numpy as np
from PIL import Image

out = sys.argv[1]
rng = np.random.default_rng(7)
sets = []


def note(path, values, labels, within=0.0, images=False):
    sets.append({"path": path, "values": np.asarray(values, dtype="float64").ravel().tolist(),
                 "labels": [str(label) for label in labels], "within": within, "images": images})


def at(*parts):
    path = os.path.join(out, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


words = np.array(["cat", "\u00e4pfel", "dog"])
for name, x, y in (
        ("u8", rng.integers(0, 256, (30, 5, 4), dtype="uint8"), rng.integers(-3, 4, 30)),
        ("f32", rng.normal(size=(30, 7)).astype("float32"), words[rng.integers(0, 3, 30)]),
        ("f16", rng.normal(size=(30, 7)).astype("float16"), rng.integers(0, 4, 30).astype("uint8")),
        ("be", rng.integers(-9, 9, (30, 2, 3, 5)).astype(">i4"), rng.integers(0, 4, 30) > 1)):
    names = y.astype("uint8") if y.dtype == bool else y
    np.save(at("npy-" + name, "x_train.npy"), x)
    np.save(at("npy-" + name, "y_train.npy"), y)
    np.save(at("npy-" + name, "x_test.npy"), x[:9])
    np.save(at("npy-" + name, "y_test.npy"), y[:9])
    note("npy-" + name, x, names)
    for save, kind in ((np.savez, "stored"), (np.savez_compressed, "packed")):
        save(at("npz-" + name + "-" + kind + ".npz"), train_images=x, train_labels=y,
             val_images=x[:3], val_labels=y[:3], test_images=x[:9], test_labels=y[:9])
        note("npz-" + name + "-" + kind + ".npz", x, names)

x, y = rng.normal(size=(20, 6)), rng.integers(1, 5, 20)
for split, rows in (("train", 20), ("test", 8)):
    np.savetxt(at("csv", split + ".csv"), np.c_[x[:rows], y[:rows]], delimiter=",",
               header="a,b,c,d,e,f,label", comments="")
note("csv", x.astype("float32"), y)

for kind, ending, mode, within in (("png", "png", "L", 0), ("rgb", "png", "RGB", 0),
                                   ("palette", "png", "P", 0), ("jpeg", "jpg", "RGB", 2)):
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
    note(kind, values, labels, within, True)

with open(at("sets.json"), "w") as file:
    json.dump(sets, file)
