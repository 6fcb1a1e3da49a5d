/* SPDX-License-Identifier: MIT */
/* `ewc report` as a user runs it: what it writes of one run and of several, and what it says of
 * folders that are no run, broken or not finished. */
#include <sys/resource.h>

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "ewc/train.h"
#include "support/cli.hpp"

using namespace test;

namespace
{
bool Exists(const std::string &path)
{
    return std::filesystem::exists(path);
}

size_t Count(const std::string &text, const std::string &part)
{
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
        count++;
    return count;
}

bool Has(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

std::string Replace(std::string text, const std::string &from, const std::string &to)
{
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
        text.replace(at, from.size(), to);
    return text;
}

/* What is wrong with an XML document, or with an HTML page that closes its elements: "" if nothing.
 * Enough of a parser for what escaping can break: tags that nest, quoted attributes, entities, ids
 * that are there once. */
std::string Malformed(const std::string &text)
{
    std::vector<std::string> open;
    std::set<std::string> ids;
    const auto entities = [](const std::string &part) {
        for (size_t at = part.find('&'); at != std::string::npos; at = part.find('&', at + 1)) {
            const size_t end = part.find_first_not_of(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#", at + 1);
            if (end == std::string::npos || end == at + 1 || part[end] != ';') return false;
        }
        return true;
    };
    for (size_t at = 0; at < text.size();) {
        if (text[at] != '<') {
            const size_t end = std::min(text.find('<', at), text.size());
            const std::string part = text.substr(at, end - at);
            if (!entities(part)) return "a bare & in: " + part.substr(0, 80);
            for (const char c : part)
                if ((unsigned char)c < ' ' && c != '\n' && c != '\t') return "a control character";
            if (part.find("]]>") != std::string::npos) return "]]> in text";
            at = end;
            continue;
        }
        size_t i = at + 1;
        const bool closing = text[i] == '/';
        if (closing) i++;
        const size_t name_end = text.find_first_of(" \t\n/>", i);
        if (name_end == std::string::npos) return "a tag without an end";
        const std::string name = text.substr(i, name_end - i);
        for (i = name_end; i < text.size() && text[i] != '>';) {
            if (text[i] != '=') {
                if (text[i] == '<') return "< in a tag: " + text.substr(at, 80);
                i++;
                continue;
            }
            size_t quote = text.find_first_not_of(' ', i + 1);
            if (text[quote] != '"' && text[quote] != '\'')
                return "an attribute without quotes: " + text.substr(at, 80);
            const size_t end = text.find(text[quote], quote + 1);
            const std::string value = text.substr(quote + 1, end - quote - 1);
            if (!entities(value)) return "a bare & in an attribute: " + value;
            if (text.substr(i - 3, 3) == " id" && !ids.insert(value).second)
                return "an id twice: " + value;
            i = end + 1;
        }
        const bool empty =
            text[i - 1] == '/' || name == "meta" || name == "!DOCTYPE" || name == "?xml";
        if (closing) {
            if (open.empty() || open.back() != name) return "</" + name + "> closes nothing";
            open.pop_back();
        } else if (!empty) {
            open.push_back(name);
        }
        at = i + 1;
        if (name == "style" && !closing) at = text.find("</style>", at);
    }
    return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

/* The lines of a CSV file as fields. */
std::vector<std::vector<std::string>> ReadCsv(const std::string &path)
{
    std::vector<std::vector<std::string>> rows(1, {""});
    bool quoted = false;
    const std::string text = ReadFile(path);
    for (size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (c == '"' && quoted && text[i + 1] == '"')
            rows.back().back() += text[++i];
        else if (c == '"')
            quoted = !quoted;
        else if (c == ',' && !quoted)
            rows.back().push_back("");
        else if (c == '\n' && !quoted)
            rows.push_back({""});
        else
            rows.back().back() += c;
    }
    rows.pop_back(); /* after the last line's end */
    return rows;
}

double Number(const json_t *object, const std::string &key)
{
    const json_t *const value = json_object_get(object, key.c_str());
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double Accuracy(const json_t *result, size_t i, size_t j)
{
    const json_t *const row = json_array_get(json_object_get(result, "accuracy"), i);
    const json_t *const value = json_array_get(row, j);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* What the record of a run says of the loss on task j after training task i. */
double LossAfter(const std::string &run, size_t i, size_t j)
{
    std::istringstream lines(ReadFile(run + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
        const Json event = ParseJson(line);
        const json_t *const losses = json_object_get(event.get(), "losses");
        if (line.find("\"event\":\"evaluated\"") == std::string::npos) continue;
        if (json_is_true(json_object_get(event.get(), "task_end")) &&
            Number(event.get(), "task") == (double)i + 1)
            return json_number_value(json_array_get(losses, j));
    }
    return NAN;
}

/* A number of a file of TensorBoard's events. */
struct Scalar {
    std::string tag;
    uint64_t step = 0;
    double seconds = 0.0;
    float value = 0.0f;
};

/* CRC-32C, as TensorBoard's records hold it. */
uint32_t MaskedCrc(const std::string &bytes)
{
    uint32_t crc = ~0u;
    for (const char c : bytes) {
        crc ^= (unsigned char)c;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

uint64_t LittleEndian(const std::string &bytes, size_t at, size_t count)
{
    uint64_t x = 0;
    for (size_t i = 0; i < count; i++)
        x |= (uint64_t)(unsigned char)bytes.at(at + i) << (8 * i);
    return x;
}

/* The fields of a protocol buffer: numbers as their bits. */
std::map<int, std::string> Fields(const std::string &bytes)
{
    std::map<int, std::string> fields;
    size_t at = 0;
    const auto varint = [&] {
        uint64_t x = 0;
        for (int shift = 0;; shift += 7) {
            const unsigned char c = (unsigned char)bytes.at(at++);
            x |= (uint64_t)(c & 0x7f) << shift;
            if (c < 0x80) return x;
        }
    };
    while (at < bytes.size()) {
        const uint64_t key = varint();
        const int wire = (int)(key & 7);
        if (wire == 0) {
            const uint64_t x = varint();
            fields[(int)(key >> 3)] = std::string((const char *)&x, 8);
            continue;
        }
        const size_t count = wire == 1 ? 8 : wire == 5 ? 4 : varint();
        fields[(int)(key >> 3)] = bytes.substr(at, count);
        at += count;
    }
    return fields;
}

/* Reads the file as TensorBoard does: lengths and checksums must be right. */
std::vector<Scalar> ReadScalars(const std::string &bytes)
{
    std::vector<Scalar> out;
    for (size_t at = 0; at < bytes.size();) {
        const size_t length = LittleEndian(bytes, at, 8);
        EXPECT_EQ(MaskedCrc(bytes.substr(at, 8)), LittleEndian(bytes, at + 8, 4));
        const std::string data = bytes.substr(at + 12, length);
        EXPECT_EQ(length, data.size());
        EXPECT_EQ(MaskedCrc(data), LittleEndian(bytes, at + 12 + length, 4));
        at += 16 + length;
        auto event = Fields(data);
        if (event.count(5) == 0) continue;
        auto value = Fields(Fields(event[5])[1]);
        Scalar scalar;
        scalar.tag = value[1];
        memcpy(&scalar.step, event[2].data(), 8);
        memcpy(&scalar.seconds, event[1].data(), 8);
        memcpy(&scalar.value, value[2].data(), 4);
        out.push_back(scalar);
    }
    return out;
}

class Report : public Cli
{
  protected:
    /* A run with `more` flags in folder `out`. */
    void Train(const std::string &out, const Words &more)
    {
        Words words = {"train", "--dataset", "custom", "--data-dir", folder.path(), "--device",
            "cpu", "--hidden", "12", "--batch", "16", "--penalty", "proximal", "--lr", "0.01",
            "--out", out};
        words.insert(words.end(), more.begin(), more.end());
        const Outcome result = Ewc(words);
        ASSERT_EQ(0, result.code) << result.err;
    }
    /* A run in the middle of which the command was killed: `keep` lines of its record are left. */
    void TrainPart(const std::string &out, const Words &more, size_t keep)
    {
        Train(out, more);
        std::istringstream lines(ReadFile(folder / (out + "/metrics.jsonl")));
        std::string kept, line;
        for (size_t i = 0; i < keep && std::getline(lines, line); i++)
            kept += line + "\n";
        WriteFile(folder / (out + "/metrics.jsonl"), kept);
        std::filesystem::remove(folder / (out + "/result.json"));
    }
    Json Result(const std::string &run)
    {
        return ParseJson(ReadFile(folder / (run + "/result.json")));
    }
    std::string Page(const std::string &where)
    {
        const std::string page = ReadFile(folder / (where + "/report.html"));
        EXPECT_EQ("", Malformed(page));
        for (const char *part : {"<script", " src=", "@import", "url(", "<link"})
            EXPECT_FALSE(Has(page, part)) << part;
        EXPECT_EQ(Count(page, "://"), Count(page, "xmlns=\"http://www.w3.org/2000/svg\"") +
                                          Count(page, "\"http://www.w3.org/1999/xlink\""));
        return page;
    }
    /* Looks at every figure in `where`/figures: SVG and PNG are as they should be, the CSV there.
     */
    void ExpectFigures(const std::string &where, const std::set<std::string> &names)
    {
        std::set<std::string> found;
        for (const auto &entry : std::filesystem::directory_iterator(folder / (where + "/figures")))
            found.insert(entry.path().filename().string());
        std::set<std::string> expected;
        for (const std::string &name : names) {
            const std::string path = folder / (where + "/figures/" + name);
            expected.insert(name + ".csv");
            expected.insert(name + ".svg");
            expected.insert(name + ".png");
            expected.insert(name + ".pdf");
            EXPECT_EQ("%PDF", ReadFile(path + ".pdf").substr(0, 4)) << name;
            const std::string svg = ReadFile(path + ".svg"), png = ReadFile(path + ".png");
            EXPECT_EQ("", Malformed(svg)) << name;
            EXPECT_TRUE(Has(svg, "currentColor")) << name;
            EXPECT_FALSE(Has(svg, "rgb(1,2,3)") || Has(svg, "rgb(  1,   2,   3)")) << name;
            EXPECT_FALSE(Has(svg, "color=\"black\"") || Has(svg, "_plot_1</title>")) << name;
            ASSERT_GT(png.size(), 24u) << name;
            EXPECT_EQ("\x89PNG", png.substr(0, 4)) << name;
            EXPECT_EQ(std::string({0, 0, 1600 / 256, 1600 % 256}), png.substr(16, 4)) << name;
        }
        EXPECT_EQ(expected, found);
    }
    static bool Gnuplot() { return std::system("gnuplot --version >/dev/null 2>&1") == 0; }
    /* Runs report without gnuplot, and so fast. */
    Outcome Plain(Words words)
    {
        words.insert(words.begin(), "report");
        environment.push_back("PATH=/nonexistent");
        const Outcome result = Ewc(words);
        environment.pop_back();
        return result;
    }
};

TEST_F(Report, OneRun)
{
    if (!Gnuplot()) GTEST_SKIP() << "no gnuplot";
    Train("run", {"--tasks", "3", "--eval-every", "5", "--report-every", "2", "--fisher-overlap"});
    const Outcome outcome = Ewc({"report", "run"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_EQ("", outcome.err);
    EXPECT_TRUE(Has(outcome.out, "run/report.html\n")) << outcome.out;
    ExpectFigures(
        "run", {"mean-accuracy", "forgetting", "class-accuracy", "penalty-share", "throughput",
                   "accuracy-matrix", "task-curves", "confusion", "fisher-trace", "fisher-share",
                   "fisher-histogram", "fisher-overlap", "fisher-overlap-tasks"});
    const std::string page = Page("run");
    const Json result = Result("run");
    EXPECT_EQ(13u, Count(page, "<svg "));
    EXPECT_EQ(13u, Count(page, "<figcaption>"));
    EXPECT_TRUE(Has(page, "36-12-10"));
    char acc[32];
    snprintf(acc, sizeof acc, "<dd>%.2f</dd>", 100.0 * Number(result.get(), "acc"));
    EXPECT_TRUE(Has(page, acc)) << acc;

    /* The numbers of the figures are those of the run. */
    auto rows = ReadCsv(folder / "run/figures/accuracy-matrix.csv");
    ASSERT_EQ(1u + 9u, rows.size());
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            const auto &row = rows[1 + 3 * i + j];
            EXPECT_EQ(std::to_string(i + 1), row[0]);
            EXPECT_EQ(std::to_string(j + 1), row[1]);
            const double accuracy = 100.0 * Accuracy(result.get(), i, j);
            if (std::isnan(accuracy))
                EXPECT_EQ("", row[2]);
            else
                EXPECT_NEAR(accuracy, std::stod(row[2]), 1e-6);
        }
    }
    snprintf(acc, sizeof acc, "<text>%.1f</text>", 100.0 * Accuracy(result.get(), 2, 0));
    EXPECT_TRUE(Has(ReadFile(folder / "run/figures/accuracy-matrix.svg"), acc)) << acc;
    rows = ReadCsv(folder / "run/figures/mean-accuracy.csv");
    ASSERT_EQ(4u, rows.size());
    EXPECT_EQ("mean accuracy (%)", rows[0][2]);
    for (size_t i = 0; i < 3; i++) {
        double sum = 0.0;
        for (size_t j = 0; j <= i; j++)
            sum += Accuracy(result.get(), i, j);
        EXPECT_NEAR(100.0 * sum / (double)(i + 1), std::stod(rows[1 + i][2]), 1e-6);
    }
    rows = ReadCsv(folder / "run/figures/forgetting.csv");
    ASSERT_EQ(3u, rows.size());
    EXPECT_NEAR(100.0 * Number(result.get(), "forgetting"),
        0.5 * (std::stod(rows[1][2]) + std::stod(rows[2][2])), 1e-4);

    /* Shares of the layers are one whole; so are the magnitudes in a layer with its zeros. */
    std::map<std::string, double> share, magnitudes;
    for (const auto &row : ReadCsv(folder / "run/figures/fisher-share.csv"))
        if (row[0] != "series") share[row[1]] += std::stod(row[2]);
    EXPECT_EQ(3u, share.size());
    for (const auto &task : share)
        EXPECT_NEAR(100.0, task.second, 1e-3) << task.first;
    for (const auto &row : ReadCsv(folder / "run/figures/fisher-histogram.csv"))
        if (row[0] != "series") magnitudes[row[0]] += std::stod(row[2]);
    EXPECT_EQ(2u, magnitudes.size());
    for (const auto &layer : magnitudes) {
        const size_t at = page.find("as F = 0: "), in = page.find(layer.first + " ", at);
        ASSERT_NE(std::string::npos, in) << layer.first;
        const double zeros = std::stod(page.substr(in + layer.first.size() + 1));
        EXPECT_NEAR(100.0, layer.second + zeros, 0.06) << layer.first;
    }

    /* A magnitude beyond all doubles is none, and its layer has the rest: here the biases alone. */
    {
        std::filesystem::copy(
            folder / "run", folder / "odd", std::filesystem::copy_options::recursive);
        std::istringstream lines(ReadFile(folder / "run/metrics.jsonl"));
        std::string record;
        for (std::string line; std::getline(lines, line); record += line + "\n") {
            const size_t at = line.find("\"log2_from\":"), end = line.find(',', at);
            if (at != std::string::npos)
                line.replace(at, end - at, "\"log2_from\":9223372036854775807");
        }
        WriteFile(folder / "odd/metrics.jsonl", record);
        ASSERT_EQ(0, Plain({"odd"}).code);
        double sum = 0.0;
        for (const auto &row : ReadCsv(folder / "odd/figures/fisher-histogram.csv"))
            if (row[0] == "fc1") sum += std::stod(row[2]);
        const json_t *const pass = json_array_get(json_object_get(result.get(), "fisher"), 2);
        const json_t *const segments = json_object_get(pass, "segments");
        const double zeros = Number(json_object_get(segments, "fc1.weight"), "zeros") +
                             Number(json_object_get(segments, "fc1.bias"), "zeros");
        double biases = 0.0;
        size_t i;
        json_t *count;
        json_array_foreach(
            json_object_get(json_object_get(segments, "fc1.bias"), "log2_counts"), i, count)
        {
            biases += json_number_value(count);
        }
        EXPECT_NEAR(100.0 * biases / (biases + zeros), sum, 1e-6);
    }

    /* Overlap of tasks 1 and 3 in the head, from the record. */
    const json_t *const fisher = json_object_get(result.get(), "fisher");
    double sum = 0.0, traces[2] = {0.0, 0.0};
    for (const char *segment : {"head.weight", "head.bias"}) {
        for (size_t t = 0; t < 2; t++) {
            const json_t *const pass = json_array_get(fisher, 2 * t);
            traces[t] +=
                Number(json_object_get(json_object_get(pass, "segments"), segment), "trace");
        }
        const json_t *const last = json_object_get(json_array_get(fisher, 2), "overlap");
        sum += json_number_value(json_array_get(json_object_get(last, segment), 0));
    }
    const double overlap = sum / std::sqrt(traces[0] * traces[1]);
    EXPECT_GT(overlap, 0.1);
    EXPECT_LT(overlap, 1.0 + 1e-6);
    rows = ReadCsv(folder / "run/figures/fisher-overlap.csv");
    ASSERT_EQ(1u + 2u * 2u, rows.size());
    EXPECT_EQ("2 tasks apart", rows[4][0]);
    EXPECT_EQ("head", rows[4][1]);
    EXPECT_NEAR(overlap, std::stod(rows[4][2]), 1e-5);
    EXPECT_EQ(1u + 4u, ReadCsv(folder / "run/figures/fisher-overlap-tasks.csv").size());

    /* Avalanche's columns. */
    rows = ReadCsv(folder / "run/eval_results.csv");
    EXPECT_EQ((std::vector<std::string>{
                  "eval_exp", "training_exp", "eval_accuracy", "eval_loss", "forgetting"}),
        rows[0]);
    ASSERT_EQ(1u + 2u + 3u + 3u, rows.size()); /* with the task that comes next */
    for (size_t k = 1; k < rows.size(); k++) {
        const size_t j = std::stoul(rows[k][0]), i = std::stoul(rows[k][1]);
        EXPECT_NEAR(Accuracy(result.get(), i, j), std::stod(rows[k][2]), 1e-7);
        if (j > i)
            EXPECT_EQ("", rows[k][3]);
        else
            EXPECT_NEAR(LossAfter(folder / "run", i, j), std::stod(rows[k][3]), 1e-6);
        const double lost =
            j < i ? Accuracy(result.get(), j, j) - Accuracy(result.get(), i, j) : 0.0;
        EXPECT_NEAR(lost, std::stod(rows[k][4]), 1e-7);
    }
}

TEST_F(Report, SeveralRunsOfDifferentShapes)
{
    if (!Gnuplot()) GTEST_SKIP() << "no gnuplot";
    for (const char *seed : {"1", "2", "3"})
        Train(std::string("ewc-") + seed, {"--tasks", "3", "--seed", seed});
    Train("strong", {"--tasks", "3", "--lambda", "7"});
    Train("sgd", {"--tasks", "2", "--method", "sgd"});
    Train("split", {"--preset", "split-mnist", "--method", "si"});
    Train("one", {"--tasks", "1", "--no-eval-next"});
    const Words runs = {"ewc-1", "sgd", "ewc-2/", "strong", "split", "ewc-3", "one"};
    Words words = {"report", "--out", "all", "--json", "--tensorboard"};
    words.insert(words.end(), runs.begin(), runs.end());
    const Outcome outcome = Ewc(words);
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_EQ("", outcome.err);
    const Json json = ParseJson(outcome.out);
    const std::string page = Page("all");
    for (const char *label : {"<h2 id=\"group-1\">ewc tasks=1 lambda=100</h2>",
             "<h2 id=\"group-2\">ewc tasks=3 lambda=7</h2>",
             "<h2 id=\"group-3\">ewc tasks=3 lambda=100 (3 seeds)</h2>", "\">sgd tasks=2</h2>",
             "\">si kind=split tasks=5 scenario=task</h2>"})
        EXPECT_TRUE(Has(page, label)) << label;
    EXPECT_TRUE(Has(page, "No Fisher information was recorded"));

    /* What it says it wrote is there. */
    std::set<std::string> names;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(json.get(), "figures"), i, item)
    {
        names.insert(json_string_value(json_object_get(item, "name")));
        EXPECT_TRUE(json_is_true(json_object_get(item, "drawn")));
    }
    ExpectFigures("all", names);
    EXPECT_TRUE(Has(ReadFile(folder / "all/figures/mean-accuracy.svg"), "fill-opacity")) << "bands";
    EXPECT_TRUE(Has(ReadFile(folder / "all/figures/task-curves-2.svg"),
        "over training: ewc tasks=3 lambda=7</text>"));
    EXPECT_EQ(runs.size(), json_array_size(json_object_get(json.get(), "runs")));
    EXPECT_EQ(runs.size(), json_array_size(json_object_get(json.get(), "tensorboard")));
    for (const char *list : {"summary", "tensorboard"}) {
        json_array_foreach(json_object_get(json.get(), list), i, item)
        {
            EXPECT_TRUE(Exists(folder / json_string_value(item))) << json_string_value(item);
        }
    }
    EXPECT_STREQ(
        "all/eval_results.csv", json_string_value(json_object_get(json.get(), "evaluations")));
    std::map<std::string, size_t> evaluations; /* of each run */
    for (const auto &row : ReadCsv(folder / "all/eval_results.csv")) {
        ASSERT_EQ(6u, row.size());
        evaluations[row[5]]++;
    }
    EXPECT_EQ((std::map<std::string, size_t>{{"run", 1}, {"ewc-1", 8}, {"ewc-2", 8}, {"ewc-3", 8},
                  {"strong", 8}, {"sgd", 4}, {"split", 19}, {"one", 1}}),
        evaluations);
    EXPECT_STREQ("all/report.html", json_string_value(json_object_get(json.get(), "page")));

    /* The mean over seeds and its standard error. */
    double values[3], mean = 0.0, squares = 0.0;
    for (size_t k = 0; k < 3; k++) {
        values[k] = 100.0 * Number(Result("ewc-" + std::to_string(k + 1)).get(), "acc");
        mean += values[k] / 3.0;
    }
    for (const double value : values)
        squares += (value - mean) * (value - mean);
    const double error = std::sqrt(squares / 2.0 / 3.0);
    char text[64];
    snprintf(text, sizeof text, "<td>%.2f ± %.2f</td>", mean, error);
    EXPECT_TRUE(Has(page, text)) << text;
    int found = 0;
    for (const auto &row : ReadCsv(folder / "all/figures/mean-accuracy.csv")) {
        if (row[0] != "ewc tasks=3 lambda=100 (3 seeds)" || row[1] != "3") continue;
        EXPECT_NEAR(mean, std::stod(row[2]), 1e-4);
        EXPECT_NEAR(error, std::stod(row[3]), 1e-4);
        found++;
    }
    EXPECT_EQ(1, found);

    /* What is left of each task at the end, by task. */
    found = 0;
    for (const auto &row : ReadCsv(folder / "all/figures/final-accuracy.csv")) {
        if (row[0] != "sgd tasks=2" || row[2].empty()) continue;
        EXPECT_NEAR(100.0 * Accuracy(Result("sgd").get(), 1, std::stoul(row[1]) - 1),
            std::stod(row[2]), 1e-4);
        found++;
    }
    EXPECT_EQ(2, found);

    /* The shares of the layers are one whole in each run, and so are their means. */
    std::map<std::string, double> share;
    for (const auto &row : ReadCsv(folder / "all/figures/fisher-share-3.csv"))
        if (row[0] != "series") share[row[1]] += std::stod(row[2]);
    EXPECT_EQ(3u, share.size());
    for (const auto &task : share)
        EXPECT_NEAR(100.0, task.second, 1e-3) << task.first;

    /* The tables. */
    const auto summary = ReadCsv(folder / "all/summary.csv");
    ASSERT_EQ(6u, summary.size());
    EXPECT_EQ(
        (std::vector<std::string>{"runs", "seeds", "tasks done", "tasks", "ACC (%)", "error of ACC",
            "BWT (points)", "error of BWT", "FWT (points)", "error of FWT", "Forgetting (points)",
            "error of Forgetting", "AIA (%)", "error of AIA", "LA (%)", "error of LA", "time (s)"}),
        summary[0]);
    EXPECT_EQ("ewc tasks=3 lambda=100 (3 seeds)", summary[3][0]);
    EXPECT_EQ("3", summary[3][1]);
    EXPECT_NEAR(mean, std::stod(summary[3][4]), 1e-4);
    EXPECT_NEAR(error, std::stod(summary[3][5]), 1e-4);
    EXPECT_EQ("", summary[1][5]); /* no error of one seed */
    const std::string tex = ReadFile(folder / "all/summary.tex");
    EXPECT_TRUE(
        Has(tex, "\\begin{tabular}{lrrrrrr}\n\\toprule\nruns & ACC & BWT & FWT & Forgetting "
                 "& AIA & LA \\\\\n\\midrule\newc tasks=1 lambda=100 & $"))
        << tex;
    snprintf(
        text, sizeof text, "ewc tasks=3 lambda=100 (3 seeds) & $%.2f \\pm %.2f$ & ", mean, error);
    EXPECT_TRUE(Has(tex, text)) << text << " in " << tex;
    EXPECT_TRUE(Has(tex, " & -- & ")) << "no BWT of one task in " << tex;
    EXPECT_TRUE(Has(tex, " \\\\\n\\bottomrule\n\\end{tabular}\n")) << tex;

    /* Without --out the report of several runs has a folder of its own. */
    const Outcome own = Plain({"sgd", "one"});
    ASSERT_EQ(0, own.code) << own.err;
    EXPECT_EQ(0u, own.out.find("runs/report-2")) << own.out;
}

/* Of two seeds: accuracy on each class and shares of what it is taken for are the means of both. */
TEST_F(Report, ShowsWhatClassesAreTakenFor)
{
    const auto flags = [](const char *seed) {
        return Words{"--kind", "split", "--tasks", "3", "--scenario", "class", "--method", "er",
            "--seed", seed, "--iterations", "8"};
    };
    for (const char *seed : {"1", "2"})
        Train(std::string("runs/s") + seed, flags(seed));
    ASSERT_EQ(0, Plain({"runs"}).code);
    std::map<std::string, double> accuracy, share;
    for (const auto &row : ReadCsv(folder / "runs/figures/class-accuracy.csv"))
        if (row[0] != "series") accuracy[row[1]] = std::stod(row[2]);
    std::vector<std::vector<std::string>> rows = ReadCsv(folder / "runs/figures/confusion.csv");
    ASSERT_EQ(1u + 36u, rows.size());
    for (size_t i = 1; i < rows.size(); i++)
        share[rows[i][0] + " for " + rows[i][1]] = std::stod(rows[i][2]);
    ASSERT_EQ(6u, accuracy.size());
    const std::string page = Page("runs");
    double most = 0.0, recency = 0.0;
    for (int i = 0; i < 6; i++) {
        double hits = 0.0;
        for (int k = 0; k < 6; k++) {
            double want = 0.0;
            for (const char *seed : {"1", "2"}) {
                const Json result = Result(std::string("runs/s") + seed);
                const json_t *const row =
                    json_array_get(json_object_get(result.get(), "confusion"), (size_t)i);
                const json_t *const samples = json_object_get(result.get(), "class_samples");
                want += 50.0 * json_number_value(json_array_get(row, (size_t)k)) /
                        json_number_value(json_array_get(samples, (size_t)i));
            }
            const std::string name = std::to_string(i) + " for " + std::to_string(k);
            ASSERT_EQ(1u, share.count(name)) << name;
            EXPECT_NEAR(want, share[name], 1e-9) << name;
            if (i == k) hits = want;
            if (i != k) most = std::max(most, want);
            if (i < 4 && k >= 4) recency += want / 4;
        }
        EXPECT_NEAR(hits, accuracy[std::to_string(i)], 1e-4) << i;
    }
    EXPECT_TRUE(Has(page, "Of each class 10 samples."));
    ASSERT_GT(most, 1.0) << "nothing is taken for another";
    char text[64];
    snprintf(text, sizeof text, "(%.1f %%)", most);
    EXPECT_TRUE(Has(page, text)) << text;
    rows = ReadCsv(folder / "runs/summary.csv");
    for (size_t i = 0; i < rows[0].size(); i++)
        if (rows[0][i] == "Recency bias (%)") {
            EXPECT_NEAR(recency, std::stod(rows[1][i]), 1e-4);
            recency = -1.0;
        }
    EXPECT_EQ(-1.0, recency) << "is not in the summary";

    /* Of a run that has not finished: after its last whole task, here the second. */
    Json second = nullptr;
    size_t keep = 0;
    {
        std::istringstream lines(ReadFile(folder / "runs/s1/metrics.jsonl"));
        std::string line;
        for (int evaluated = 0; evaluated < 2 && std::getline(lines, line); keep++)
            evaluated += Has(line, "class_accuracy");
        second = ParseJson(line);
    }
    TrainPart("part", flags("1"), keep + 2);
    ASSERT_EQ(0, Plain({"part"}).code);
    rows = ReadCsv(folder / "part/figures/class-accuracy.csv");
    ASSERT_EQ(7u, rows.size());
    for (size_t k = 0; k < 6; k++) {
        const json_t *const want =
            json_array_get(json_object_get(second.get(), "class_accuracy"), k);
        EXPECT_EQ(k >= 4, rows[1 + k][2].empty()) << k;
        if (k < 4) {
            EXPECT_NEAR(100.0 * json_number_value(want), std::stod(rows[1 + k][2]), 1e-9);
        }
    }
    EXPECT_EQ(1u + 16u, ReadCsv(folder / "part/figures/confusion.csv").size());
}

/* A class without test samples is what others are taken for: rows add up to 100 %. */
TEST_F(Report, ShowsAnswersThatHaveNoSamples)
{
    Train("run", {"--tasks", "2", "--scenario", "class"});
    const Json result = Result("run");
    for (const auto &[key, value] :
        {std::pair{"class_accuracy", "[0.5,1,null,null]"}, {"class_samples", "[30,30,0,0]"},
            {"confusion", "[[15,0,15,0],[0,30,0,0],[0,0,0,0],[0,0,0,0]]"},
            {"classes", "[\"a\",\"b\",\"c\",\"d\"]"}, {"class_tasks", "[1,1,2,2]"}})
        json_object_set_new(result.get(), key, json_loads(value, 0, nullptr));
    char *const text = json_dumps(result.get(), 0);
    WriteFile(folder / "run/result.json", text);
    free(text);
    ASSERT_EQ(0, Plain({"run"}).code);
    std::map<std::string, std::string> share;
    for (const auto &row : ReadCsv(folder / "run/figures/confusion.csv"))
        share[row[0] + row[1]] = row[2];
    ASSERT_EQ(1u + 9u, share.size()) << "d is nothing's answer";
    EXPECT_EQ("50", share["aa"]);
    EXPECT_EQ("50", share["ac"]);
    EXPECT_EQ("", share["ca"]);
}

/* More classes than a figure has room for are put together by their tasks; of more tasks, too, and
 * of classes that are not counted, a sentence says so; and what a hostile file says is not
 * believed. */
TEST_F(Report, ShowsManyClasses)
{
    Train("run", {"--tasks", "2", "--scenario", "class"});
    const auto write = [&](size_t classes, size_t tasks, bool counts, const char *name) {
        const Json result = Result("run");
        json_t *const accuracy = json_array(), *const rows = json_array(),
                      *const samples = json_array(), *const names = json_array(),
                      *const whose = json_array();
        for (size_t k = 0; k < classes; k++) {
            json_t *const row = json_array();
            for (size_t j = 0; counts && j < classes; j++) /* each for the one before, and half
                                                            * of the first for itself */
                json_array_append_new(row, json_integer((j + 1) % classes == k ? 3
                                                        : k == 0 && j == 0     ? 3
                                                                               : 0));
            json_array_append_new(rows, row);
            json_array_append_new(samples, json_integer(k == 0 ? 6 : 3));
            json_array_append_new(accuracy, json_real(k == 0 ? 0.5 : 0.0));
            json_array_append_new(names, json_string(name));
            json_array_append_new(whose, json_integer((json_int_t)(k / (classes / tasks) + 1)));
        }
        for (const auto &[key, value] : {std::pair{"class_accuracy", accuracy}, {"confusion", rows},
                 {"classes", names}, {"class_tasks", whose}, {"class_samples", samples}})
            json_object_set_new(result.get(), key, value);
        char *const text = json_dumps(result.get(), 0);
        WriteFile(folder / "run/result.json", text);
        free(text);
        EXPECT_EQ(0, Plain({"run"}).code);
        return Page("run");
    };
    EXPECT_TRUE(Has(write(20, 2, true, "<b>&'%"), "1: &lt;b&gt;&amp;&#39;% for") ||
                Has(Page("run"), "for 1: &lt;b&gt;"));
    EXPECT_EQ(1u + 400u, ReadCsv(folder / "run/figures/confusion.csv").size());
    EXPECT_TRUE(Has(Page("run"), "Of each class 3 to 6 samples."));
    EXPECT_TRUE(Has(write(200, 10, true, "a"), "put together"));
    auto rows = ReadCsv(folder / "run/figures/confusion.csv");
    ASSERT_EQ(1u + 100u, rows.size());
    /* Of task 2's 20 classes the first is taken for one of task 1; of task 1's the first for its
     * own half of the time, and else for task 10's. */
    EXPECT_NEAR(5.0, std::stod(rows[1 + 10][2]), 1e-9);
    EXPECT_NEAR(95.0, std::stod(rows[1 + 11][2]), 1e-9);
    EXPECT_NEAR(100.0 * 3 / 63, std::stod(rows[1 + 9][2]), 1e-9);
    EXPECT_EQ(1u + 200u, ReadCsv(folder / "run/figures/class-accuracy.csv").size());
    std::filesystem::remove_all(folder / "run/figures");
    EXPECT_TRUE(Has(write(202, 101, true, "a"), "matrix of 202 classes is not drawn"));
    EXPECT_FALSE(std::filesystem::exists(folder / "run/figures/confusion.csv"));
    std::filesystem::remove_all(folder / "run/figures");
    const std::string page = write(1025, 5, false, "a");
    EXPECT_TRUE(Has(page, "Of 1025 classes no figure is drawn"));
    EXPECT_TRUE(Has(page, "Of more than 1024 classes it is not counted"));
    EXPECT_FALSE(std::filesystem::exists(folder / "run/figures/class-accuracy.csv"));

    const std::string result = ReadFile(folder / "run/result.json");
    for (const char *hostile : {"\"class_accuracy\":7", "\"class_accuracy\":[null,\"a\",{}]",
             "\"class_accuracy\":[1,2],\"confusion\":[[1],[2,3]]",
             "\"class_accuracy\":[1,0],\"confusion\":[[1e300,1e300],[-1,1]],"
             "\"class_tasks\":[1e300,-5],\"classes\":[null,3]"}) {
        const Json base = Result("run");
        for (const char *key : {"class_accuracy", "confusion", "class_tasks", "classes"})
            json_object_del(base.get(), key);
        const Json more = ParseJson("{" + std::string(hostile) + "}");
        json_object_update(base.get(), more.get());
        char *const text = json_dumps(base.get(), 0);
        WriteFile(folder / "run/result.json", text);
        free(text);
        EXPECT_EQ(0, Plain({"run"}).code) << hostile;
        (void)Page("run");
    }
}

/* Runs are held against the joint run and tested against each other where tasks and seeds are the
 * same, and nowhere else. */
TEST_F(Report, SeedsThatDrawTheirTestRowsAreOneGroup)
{
    const auto write = [&](int rows) {
        std::string table = "a,b,label\n";
        for (int i = 0; i < rows; i++)
            table += std::to_string(i % 7) + "," + std::to_string(i % 4) + "," +
                     std::to_string(i % 4) + "\n";
        WriteFile(folder / "own.csv", table);
    };
    const auto train = [&](const std::string &out, const std::string &method,
                           const std::string &seed) {
        const Outcome outcome =
            Ewc({"train", "--data", "own.csv", "--kind", "split", "--tasks", "2", "--device", "cpu",
                "--hidden", "8", "--method", method, "--seed", seed, "--out", out});
        ASSERT_EQ(0, outcome.code) << outcome.err;
    };
    write(80);
    for (const std::string method : {"sgd", "si"})
        for (const std::string seed : {"1", "2"})
            train(method + seed, method, seed);
    ASSERT_STRNE(json_string_value(json_object_get(Result("sgd1").get(), "data_checksum")),
        json_string_value(json_object_get(Result("sgd2").get(), "data_checksum")));
    Outcome outcome = Plain({"sgd1", "sgd2", "si1", "si2", "--json", "--out", "all"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_TRUE(Has(Page("all"), "sgd (2 seeds)") && Has(Page("all"), "si (2 seeds)"));
    const Json document = ParseJson(outcome.out);
    EXPECT_EQ(
        2.0, Number(json_array_get(json_object_get(document.get(), "paired_tests"), 0), "seeds"));

    write(84); /* other data is another group */
    train("sgd3", "sgd", "3");
    ASSERT_EQ(0, Plain({"sgd1", "sgd3", "--out", "two"}).code);
    EXPECT_FALSE(Has(Page("two"), "seeds)"));

    /* Drawing takes seconds: on a terminal the figure is named that is being drawn. */
    environment.push_back("PATH=/nonexistent");
    EXPECT_TRUE(Has(OnTerminal({"report", "sgd1", "si1", "--out", "three"}, 80).out,
        "\033[Kfigure 1: mean-accuracy"));
    EXPECT_FALSE(Has(
        OnTerminal({"report", "sgd1", "si1", "--out", "four", "--quiet"}, 80).out, "figure 1: "));
    environment.pop_back();
}

TEST_F(Report, ComparesRunsOfTheSameTasksAndSeeds)
{
    Words all;
    for (const char *seed : {"1", "2"}) {
        for (const auto &[name, method, tasks] :
            std::vector<std::array<std::string, 3>>{{"sgd", "sgd", "2"}, {"joint", "joint", "2"},
                {"long", "joint", "3"}, {"alone", "sgd", "1"}}) {
            all.push_back(name + "-" + seed);
            Train(all.back(), {"--method", method, "--tasks", tasks, "--seed", seed});
        }
    }
    Words words = all;
    words.insert(words.end(), {"--json", "--out", "all"});
    const Outcome outcome = Plain(words);
    ASSERT_EQ(0, outcome.code) << outcome.err;
    const Json document = ParseJson(outcome.out);
    const json_t *const pairs = json_object_get(document.get(), "paired_tests");
    std::string tested;
    for (size_t i = 0; i < json_array_size(pairs); i++)
        tested +=
            std::string(json_string_value(json_object_get(json_array_get(pairs, i), "measure"))) +
            " ";
    EXPECT_EQ("acc bwt fwt forgetting incremental_acc learning_acc intransigence ", tested);
    const json_t *const pair = json_array_get(pairs, 0);
    EXPECT_STREQ("sgd tasks=2 (2 seeds)", json_string_value(json_object_get(pair, "a")));
    EXPECT_STREQ("joint tasks=2 (2 seeds)", json_string_value(json_object_get(pair, "b")));
    EXPECT_EQ(2.0, Number(pair, "seeds"));
    EXPECT_EQ(0.5, Number(pair, "smallest_p"));
    double difference = 0.0, intransigence = 0.0, learning = 0.0;
    for (const char *seed : {"1", "2"}) {
        const Json sgd = Result(std::string("sgd-") + seed);
        const Json joint = Result(std::string("joint-") + seed);
        difference += (Number(sgd.get(), "acc") - Number(joint.get(), "acc")) / 2;
        learning += (Accuracy(sgd.get(), 0, 0) + Accuracy(sgd.get(), 1, 1)) / 4;
        for (size_t j = 0; j < 2; j++)
            intransigence += (Accuracy(joint.get(), j, j) - Accuracy(sgd.get(), j, j)) / 4;
        EXPECT_TRUE(json_is_null(json_object_get(sgd.get(), "intransigence")));
        const json_t *const undefined = json_object_get(sgd.get(), "undefined");
        EXPECT_STREQ("needs a joint run of the same tasks and seed beside it (compare, report)",
            json_string_value(json_object_get(undefined, "intransigence")));
    }
    EXPECT_NE(0.0, intransigence);
    EXPECT_NEAR(difference, Number(pair, "difference"), 1e-6);
    std::map<std::string, std::map<std::string, std::string>> cells;
    const auto read = [&] {
        const auto rows = ReadCsv(folder / "all/summary.csv");
        for (const auto &row : rows)
            for (size_t i = 0; i < row.size(); i++)
                cells[row[0]][rows[0][i]] = row[i];
    };
    read();
    EXPECT_NEAR(100.0 * intransigence,
        std::stod(cells["sgd tasks=2 (2 seeds)"]["Intransigence (points)"]), 1e-4);
    EXPECT_NEAR(100.0 * learning, std::stod(cells["sgd tasks=2 (2 seeds)"]["LA (%)"]), 1e-4);
    EXPECT_EQ("0", cells["joint tasks=3 (2 seeds)"]["Intransigence (points)"]);
    EXPECT_EQ("", cells["sgd tasks=1 (2 seeds)"]["Intransigence (points)"]);
    const std::string page = Page("all");
    EXPECT_EQ(1u, Count(page, "aria-label=\"Differences\""));
    EXPECT_EQ(7u, Count(page, "<span class=\"soft\">p&nbsp;"));
    EXPECT_TRUE(Has(page, "with 2 seeds it is 2/2^2 = 0.5 at the smallest"));

    /* A result of an older version has the two that its matrix tells. */
    const Json older = Result("sgd-1");
    for (const char *key : {"learning_acc", "incremental_acc", "min_acc", "stability_gap"})
        json_object_del(older.get(), key);
    char *const text = json_dumps(older.get(), 0);
    WriteFile(folder / "sgd-1/result.json", text);
    free(text);
    cells.clear();
    ASSERT_EQ(0, Plain(words).code);
    read();
    EXPECT_NEAR(100.0 * learning, std::stod(cells["sgd tasks=2 (2 seeds)"]["LA (%)"]), 1e-4);

    /* Of two joint runs neither is the reference. */
    Train("other", {"--method", "joint", "--tasks", "2", "--seed", "1", "--init", "glorot"});
    words.insert(words.begin(), "other");
    ASSERT_EQ(0, Plain(words).code);
    cells.clear();
    read();
    const double second = [&] {
        const Json sgd = Result("sgd-2"), joint = Result("joint-2");
        return 50.0 * (Accuracy(joint.get(), 0, 0) + Accuracy(joint.get(), 1, 1) -
                          Accuracy(sgd.get(), 0, 0) - Accuracy(sgd.get(), 1, 1));
    }();
    bool found = false;
    for (auto &[label, row] : cells) {
        if (label.rfind("sgd tasks=2", 0) != 0) continue;
        found = true;
        EXPECT_NEAR(second, std::stod(row["Intransigence (points)"]), 1e-4) << label;
    }
    EXPECT_TRUE(found);
}

/* A folder of runs is all of them, in the order of what was varied, with the accuracy over it; what
 * an interrupted command has put aside is no run. */
TEST_F(Report, AFolderOfRuns)
{
    if (!Gnuplot()) GTEST_SKIP() << "no gnuplot";
    Words sweep = {"sweep", "lambda=1000,2,10", "--dataset", "custom", "--data-dir", folder.path(),
        "--device", "cpu", "--tasks", "2", "--hidden", "12", "--batch", "16", "--penalty",
        "proximal", "--validation", "50", "--seeds", "2", "--out", "grid"};
    ASSERT_EQ(0, Ewc(sweep).code);
    std::filesystem::copy(folder / "grid/lambda=2_s1", folder / "grid/lambda=2_s1.old",
        std::filesystem::copy_options::recursive);
    std::filesystem::copy(folder / "grid/lambda=2_s1", folder / "grid/lambda=2_s1.old-2",
        std::filesystem::copy_options::recursive);
    std::filesystem::create_directory(folder / "grid/notes");
    const double validation[] = {0.5, 0.75, 0.9375}, test[] = {0.625, 0.375, 0.125};
    const char *const lambdas[] = {"2", "10", "1000"};
    for (int i = 0; i < 3; i++)
        for (const char *seed : {"_s1", "_s2"}) {
            const std::string run = std::string("grid/lambda=") + lambdas[i] + seed;
            const Json result = Result(run);
            json_object_set_new(result.get(), "validation_acc", json_real(validation[i]));
            if (i == 2 && std::string("_s2") == seed) /* a row with a seed less is not the best */
                json_object_set_new(result.get(), "validation_acc", json_null());
            json_object_set_new(result.get(), "acc", json_real(test[i]));
            char *const text = json_dumps(result.get(), 0);
            WriteFile(folder / (run + "/result.json"), text);
            free(text);
        }
    const Outcome outcome = Ewc({"report", "grid/", "--json"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_EQ("", outcome.err);
    const Json json = ParseJson(outcome.out);
    EXPECT_STREQ("grid/report.html", json_string_value(json_object_get(json.get(), "page")));
    ASSERT_EQ(6u, json_array_size(json_object_get(json.get(), "runs")));
    std::vector<std::string> order; /* of the runs, each once */
    for (const auto &row : ReadCsv(folder / "grid/eval_results.csv"))
        if (order.empty() || order.back() != row[5]) order.push_back(row[5]);
    EXPECT_EQ((std::vector<std::string>{"run", "grid/lambda=2_s1", "grid/lambda=2_s2",
                  "grid/lambda=10_s1", "grid/lambda=10_s2", "grid/lambda=1000_s1",
                  "grid/lambda=1000_s2"}),
        order);
    EXPECT_TRUE(Has(ReadFile(folder / "grid/figures/sweep.svg"), "<text>50</text>")) << "decades";
    const std::string page = Page("grid");
    EXPECT_TRUE(Has(page, "<th scope=\"col\">Validation ACC (%)</th>"));
    EXPECT_TRUE(Has(page, "<td>75.00 ± 0.00</td>"));
    EXPECT_TRUE(Has(page, "Best on validation samples, which no run is trained on: ewc lambda=10 "
                          "(2 seeds), 75.00 %."));
    size_t last = 0;
    for (const char *lambda : lambdas) {
        const size_t at = page.find("\">ewc lambda=" + std::string(lambda) + " (2 seeds)</a></li>");
        ASSERT_NE(std::string::npos, at) << lambda;
        EXPECT_GT(at, last) << lambda;
        last = at;
    }
    const auto rows = ReadCsv(folder / "grid/figures/sweep.csv");
    ASSERT_EQ(7u, rows.size());
    EXPECT_EQ(
        (std::vector<std::string>{"series", "lambda", "mean accuracy (%)", "error"}), rows[0]);
    for (size_t i = 0; i < 3; i++) {
        EXPECT_EQ("test", rows[1 + i][0]);
        EXPECT_EQ("validation", rows[4 + i][0]);
        for (const size_t at : {1 + i, 4 + i})
            EXPECT_EQ(lambdas[i], rows[at][1]);
        EXPECT_NEAR(100.0 * test[i], std::stod(rows[1 + i][2]), 1e-9);
        EXPECT_NEAR(100.0 * validation[i], std::stod(rows[4 + i][2]), 1e-9);
    }

    /* Named one by one, as by a shell, they are left out, too, with a word; alone it is a run. */
    const Outcome named = Plain(
        {"grid/lambda=2_s1", "grid/lambda=2_s1.old", "grid/lambda=2_s1.old-2/", "--out", "some"});
    EXPECT_EQ(0, named.code);
    EXPECT_TRUE(
        Has(named.err, "grid/lambda=2_s1.old: put aside by an interrupted command; left out\n"));
    EXPECT_TRUE(Has(named.err, "grid/lambda=2_s1.old-2/: put aside"));
    EXPECT_FALSE(Has(Page("some"), "seeds)"));
    EXPECT_EQ(0, Plain({"grid/lambda=2_s1.old", "--out", "old"}).code);
    std::filesystem::rename(folder / "grid/lambda=2_s1.old", folder / ".old"); /* a whole name */
    EXPECT_FALSE(Has(Plain({".old", "grid/lambda=2_s1", "--out", "two"}).err, "put aside"));
    std::filesystem::rename(folder / ".old", folder / "grid/lambda=2_s1.old");
    EXPECT_EQ(2, Plain({"grid/lambda=2_s1.old", "grid/lambda=2_s1.old-2", "--out", "none"}).code);
    ExpectRefused(
        2, "grid/notes: not the folder of a run: config.json is missing", {"report", "grid/notes"});

    /* Rounding does not hide the tic where an axis begins, of 10 least of all. */
    ASSERT_EQ(0, Ewc({"report", "grid/lambda=10_s1", "grid/lambda=1000_s1", "--out", "ends"}).code);
    for (const char *tic : {"<text>10</text>", "<text>1000</text>"})
        EXPECT_TRUE(Has(ReadFile(folder / "ends/figures/sweep.svg"), tic)) << tic;
}

/* A grid of two options is a curve for each value of one; methods side by side are none. */
TEST_F(Report, WhatWasVaried)
{
    Words sweep = {"sweep", "lr=0.1,0.02", "lambda=30,1,5", "--dataset", "custom", "--data-dir",
        folder.path(), "--device", "cpu", "--tasks", "2", "--hidden", "12", "--batch", "16",
        "--optimizer", "sgd", "--validation", "50", "--out", "grid"};
    ASSERT_EQ(0, Ewc(sweep).code);
    ASSERT_EQ(0, Plain({"grid"}).code);
    const auto rows = ReadCsv(folder / "grid/figures/sweep.csv");
    ASSERT_EQ(1u + 12u, rows.size());
    EXPECT_EQ("lambda", rows[0][1]);
    const char *const names[] = {
        "lr=0.02 test", "lr=0.02 validation", "lr=0.1 test", "lr=0.1 validation"};
    for (size_t i = 0; i < 12; i++) {
        EXPECT_EQ(names[i / 3], rows[1 + i][0]);
        EXPECT_EQ((std::vector<std::string>{"1", "5", "30"})[i % 3], rows[1 + i][1]);
    }
    /* Of as many values the first option of the table is the axis. */
    for (const char *lr : {"0.02", "0.1"})
        std::filesystem::remove_all(folder / (std::string("grid/lr=") + lr + "_lambda=5_s1"));
    ASSERT_EQ(0, Plain({"grid", "--out", "square"}).code);
    EXPECT_EQ("lambda", ReadCsv(folder / "square/figures/sweep.csv")[0][1]);
    Train("a", {"--tasks", "2", "--lambda", "3"});
    Train("b", {"--tasks", "2", "--lambda", "4"});
    Train("c", {"--tasks", "2", "--method", "sgd"});
    ASSERT_EQ(0, Plain({"a", "b", "c", "--out", "methods"}).code);
    EXPECT_FALSE(Exists(folder / "methods/figures/sweep.csv"));
}

/* What is one point, or has one tick, is no figure: of one task there is no curve over tasks. */
TEST_F(Report, ASinglePointIsNoCurve)
{
    Train("run", {"--tasks", "1", "--report-every", "1000", "--no-eval-next"});
    ASSERT_EQ(0, Plain({"run"}).code);
    for (const char *name : {"mean-accuracy", "task-curves", "throughput", "penalty-share",
             "forgetting", "final-accuracy", "sweep"})
        EXPECT_FALSE(Exists(folder / (std::string("run/figures/") + name + ".csv"))) << name;
    const auto rows = ReadCsv(folder / "run/figures/fisher-trace.csv");
    ASSERT_EQ(3u, rows.size());
    EXPECT_EQ("layer, from input to output", rows[0][1]);
    EXPECT_EQ("fc1", rows[1][1]);
    EXPECT_EQ("head", rows[2][1]);
    const Json result = Result("run");
    const json_t *const pass = json_array_get(json_object_get(result.get(), "fisher"), 0);
    for (size_t i = 0; i < 2; i++) {
        double trace = 0.0;
        for (const char *segment : {".weight", ".bias"})
            trace += Number(json_object_get(json_object_get(pass, "segments"),
                                (rows[1 + i][1] + segment).c_str()),
                "trace");
        EXPECT_NEAR(trace, std::stod(rows[1 + i][2]), 1e-4 * trace);
    }
}

/* More layers than lines can be told apart are the rows of heat maps, each with its name. */
TEST_F(Report, ManyLayersAreRowsOfAHeatMap)
{
    const Outcome trained = Ewc(
        {"train", "--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu", "--hidden",
            "4,4,4,4,4,4,4,4,4,4,4,4", "--batch", "16", "--tasks", "2", "--out", "run"});
    ASSERT_EQ(0, trained.code) << trained.err;
    ASSERT_EQ(0, Ewc({"report", "run"}).code);
    const Json result = Result("run");
    const json_t *const passes = json_object_get(result.get(), "fisher");
    const auto trace = [&](size_t task, const std::string &layer) {
        const json_t *const segments = json_object_get(json_array_get(passes, task), "segments");
        double sum = 0.0;
        for (const char *segment : {".weight", ".bias"})
            sum += Number(json_object_get(segments, (layer + segment).c_str()), "trace");
        return sum;
    };
    const auto rows = ReadCsv(folder / "run/figures/fisher-trace.csv");
    ASSERT_EQ(1u + 13u * 2u, rows.size());
    EXPECT_EQ("log10 of the trace", rows[0][2]);
    const std::string drawing = ReadFile(folder / "run/figures/fisher-share.svg");
    for (size_t i = 0; i < 13; i++) {
        const std::string layer = i == 12 ? "head" : "fc" + std::to_string(i + 1);
        EXPECT_TRUE(Has(drawing, "<text>" + layer + "</text>")) << layer;
        for (size_t t = 0; t < 2; t++) {
            const auto &row = rows[1 + 2 * i + t];
            EXPECT_EQ(layer, row[0]);
            EXPECT_EQ(std::to_string(t + 1), row[1]);
            const double log = std::log10(trace(t, layer));
            if (std::isfinite(log)) { /* a layer whose units are all dead has no trace */
                EXPECT_NEAR(log, std::stod(row[2]), 1e-4) << layer;
            }
        }
    }
    std::map<std::string, double> share, magnitudes;
    for (const auto &row : ReadCsv(folder / "run/figures/fisher-share.csv"))
        if (row[1] == "1" || row[1] == "2") share[row[1]] += std::stod(row[2]);
    ASSERT_EQ(2u, share.size());
    for (const auto &task : share)
        EXPECT_NEAR(100.0, task.second, 1e-3) << task.first;
    for (const auto &row : ReadCsv(folder / "run/figures/fisher-histogram.csv"))
        if (row[1] != "log10 F") magnitudes[row[0]] += std::stod(row[2]);
    EXPECT_EQ(13u, magnitudes.size());
    EXPECT_LE(magnitudes["head"], 100.0 + 1e-3);
    EXPECT_GT(magnitudes["head"], 10.0);
}

/* Nor is one bar: of two tasks one can be forgotten, and a layer alone has the whole trace. */
TEST_F(Report, ASingleBarIsNoFigure)
{
    Words words = {"train", "--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu",
        "--tasks", "2", "--hidden", "none", "--batch", "16", "--lr", "0.01", "--out", "run"};
    const Outcome trained = Ewc(words);
    ASSERT_EQ(0, trained.code) << trained.err;
    ASSERT_EQ(0, Plain({"run"}).code);
    for (const char *name : {"forgetting", "fisher-share"})
        EXPECT_FALSE(Exists(folder / (std::string("run/figures/") + name + ".csv"))) << name;
    for (const char *name : {"mean-accuracy", "task-curves", "fisher-trace"})
        EXPECT_TRUE(Exists(folder / (std::string("run/figures/") + name + ".csv"))) << name;
}

/* Runs that cannot be averaged are not. */
TEST_F(Report, OnlySeedsOfTheSameRunAreOneGroup)
{
    Train("a", {"--tasks", "3", "--seed", "1"});
    Train("b", {"--tasks", "3", "--seed", "2"});
    Train("again", {"--tasks", "3", "--seed", "1"});
    std::filesystem::create_symlink("a", folder / "link");
    for (const char *other : {"./a", "link", "a/../a"}) {
        const Outcome twice = Plain({"a", other});
        EXPECT_EQ(2, twice.code);
        EXPECT_TRUE(Has(twice.err, "given twice")) << twice.err;
    }
    Outcome outcome = Plain({"a", "again", "b", "--out", "seeds"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    std::string page = Page("seeds");
    EXPECT_TRUE(Has(page, "(2 seeds)"));
    EXPECT_FALSE(Has(page, "(3 seeds)"));

    /* The same configuration, but results of different shapes: as by a broken copy. */
    const Json result = Result("b");
    json_object_set_new(result.get(), "tasks", json_integer(400));
    char *const text = json_dumps(result.get(), 0);
    WriteFile(folder / "b/result.json", text);
    free(text);
    for (const Words &runs : {Words{"a", "b"}, Words{"b", "a"}}) {
        Words words = runs;
        words.insert(words.end(), {"--out", "shapes-" + runs[0]});
        outcome = Plain(words);
        ASSERT_EQ(0, outcome.code) << outcome.err;
        EXPECT_FALSE(Has(Page("shapes-" + runs[0]), "seeds)"));
    }
}

TEST_F(Report, TheCommandRunsItAgain)
{
    const std::string data = folder / "it's data & more";
    std::filesystem::create_directory(data);
    WriteTinyMnist(data);
    const Words flags[] = {{"--tasks", "2", "--seed", "9", "--iterations", "7", "--no-eval-next"},
        {"--preset", "split-mnist", "--epochs", "2", "--method", "si", "--si-c", "0.5"},
        {"--method", "dropout", "--tasks", "2", "--validation", "50", "--patience", "2",
            "--dropout-input", "0"},
        {"--method", "dropout", "--tasks", "2", "--validation", "0", "--patience", "0",
            "--dropout-input", "0", "--dropout-hidden", "0"},
        {"--preset", "permuted-mnist-1024", "--hidden", "none", "--epochs", "1", "--tasks", "2",
            "--lambda", "0.125", "--pad", "0"}};
    for (const Words &more : flags) {
        for (const char *old : {"run", "again"})
            std::filesystem::remove_all(folder / old);
        Words words = {"train", "--device", "cpu", "--dataset", "custom", "--data-dir", data,
            "--hidden", "12", "--batch", "16", "--out", "run"};
        for (size_t k = 0; k < more.size(); k++) {
            if (more[k] == "--hidden") words.erase(words.begin() + 7, words.begin() + 9);
        }
        words.insert(words.end(), more.begin(), more.end());
        Outcome result = Ewc(words);
        ASSERT_EQ(0, result.code) << result.err;
        ASSERT_EQ(0, Plain({"run"}).code);
        const std::string page = Page("run");
        const size_t begin = page.find("<pre><code>") + 11;
        std::string command = page.substr(begin, page.find('\n', begin) - begin);
        for (const auto &[from, to] : std::map<std::string, std::string>{{"<span>", ""},
                 {"</span>", ""}, {"&#39;", "'"}, {"&quot;", "\""}, {"&lt;", "<"}, {"&gt;", ">"}})
            command = Replace(command, from, to);
        command = Replace(command, "&amp;", "&");
        SCOPED_TRACE(command);
        const std::string script = "cd '" + folder.path() + "' && ewc() { " + EWC_CLI_PATH +
                                   " \"$@\"; }; " + command + " --out again 2>/dev/null >&2";
        ASSERT_EQ(0, std::system(script.c_str()));
        EXPECT_EQ(ReadFile(folder / "run/config.json"), ReadFile(folder / "again/config.json"));
        const Json first = Result("run"), second = Result("again");
        EXPECT_TRUE(json_equal(
            json_object_get(first.get(), "accuracy"), json_object_get(second.get(), "accuracy")));
    }
}

TEST_F(Report, NamesMayHoldAnything)
{
    const std::string names[] = {"a<b>&\"c'd", "naïve λ 日本 😀", "$(touch x)`touch y`; %s %n @",
        "line\nend\ttab", "x-->]]><script>", "bad \x80\xc0\xaf utf-8", std::string(200, 'w')};
    for (const std::string &name : names) {
        SCOPED_TRACE(name);
        const std::string out = "out of " + name;
        Train("plain", {"--tasks", "2"});
        std::filesystem::rename(folder / "plain", folder / name);
        Outcome outcome = Plain({name});
        ASSERT_EQ(0, outcome.code) << outcome.err;
        Page(name);
        outcome = Plain({name, "--json", "--tensorboard", "--out", out});
        ASSERT_EQ(0, outcome.code) << outcome.err;
        EXPECT_TRUE(ParseJson(outcome.out) != nullptr);
        Page(out);
    }
    EXPECT_TRUE(Has(ReadFile(folder / names[0] + "/report.html"), "a&lt;b&gt;&amp;&quot;c&#39;d"));
    if (!Gnuplot()) GTEST_SKIP() << "no gnuplot";

    /* A letter of Latin-1 is shown as what it is. */
    std::filesystem::rename(folder / names[2], folder / "na\xefve");
    ASSERT_EQ(0, Plain({"na\xefve"}).code);
    EXPECT_TRUE(Has(Page("na\xefve"), "<h1>Report on naïve</h1>"));
    std::filesystem::rename(folder / "na\xefve", folder / names[2]);

    /* In the legend, through a setting that this version does not know. */
    for (const size_t k : {0, 1, 2, 4}) {
        const std::string path = folder / (names[k] + "/config.json");
        Json config = ParseJson(ReadFile(path));
        json_object_set_new(config.get(), "future <&'\" key", json_string(names[k].c_str()));
        json_object_set_new(config.get(), "gone\n", json_string("\x01\\ \\n {/*2 x}"));
        char *const text = json_dumps(config.get(), 0);
        WriteFile(path, text);
        free(text);
    }
    ASSERT_EQ(0, Plain({names[0]}).code);
    const std::string alone = ReadFile(folder / (names[0] + "/report.html"));
    const size_t command = alone.find("<pre><code>");
    EXPECT_FALSE(Has(alone.substr(command, alone.find("</code>", command) - command), "future"))
        << "a key that is no option, in a command for a shell";
    const Outcome outcome = Ewc({"report", names[0], names[1], names[2], names[4], "--out", "all"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    const std::string page = Page("all");
    EXPECT_TRUE(Has(page, "naïve λ 日本 😀"));
    EXPECT_TRUE(Has(page, "future &lt;&amp;"));
    EXPECT_FALSE(Has(ReadFile(folder / "all/summary.tex"), "a<b>&"));
    EXPECT_TRUE(Has(ReadFile(folder / "all/summary.tex"), "a\\textless{}b\\textgreater{}\\&\"c'd"));
    EXPECT_TRUE(Has(ReadFile(folder / "all/summary.tex"), "\\$(touch x)`touch y`; \\%s \\%n @"));
    EXPECT_EQ("", Malformed(ReadFile(folder / "all/figures/mean-accuracy.svg")));
    EXPECT_FALSE(Exists(folder / "x") || Exists(folder / "y") || Exists(folder / "all/figures/x") ||
                 Exists(folder / "all/figures/y"));

    /* Along an axis a layer's name has 24 characters at most. */
    Train("layers", {"--tasks", "1"});
    const std::string record = folder / "layers/metrics.jsonl";
    WriteFile(record, Replace(ReadFile(record), "\"fc1.", "\"twenty-five-characters-xx."));
    ASSERT_EQ(0, Ewc({"report", "layers"}).code);
    EXPECT_TRUE(Has(ReadFile(folder / "layers/figures/fisher-trace.svg"),
        "<text>twenty-five-characters-…</text>"));
}

TEST_F(Report, UnfinishedRunsAreShownAsFarAsTheyWent)
{
    Train("whole", {"--tasks", "3", "--report-every", "1"});
    const std::string record = ReadFile(folder / "whole/metrics.jsonl");
    const size_t lines = Count(record, "\n");
    size_t reports = 0;
    for (size_t keep = 0; keep < lines; keep += 1 + lines / 20) {
        SCOPED_TRACE(keep);
        std::filesystem::remove_all(folder / "part");
        TrainPart("part", {"--tasks", "3", "--report-every", "1"}, keep);
        const Outcome outcome = Plain({"part"});
        ASSERT_EQ(0, outcome.code) << outcome.err;
        const std::string page = Page("part");
        EXPECT_TRUE(Has(page, "<strong>Unfinished:</strong> part has not finished; "));
        EXPECT_TRUE(Has(page, "(unfinished)"));
        reports++;
    }
    EXPECT_GT(reports, 10u);

    /* The result that an early end leaves is of some tasks; the record goes further. */
    std::filesystem::remove_all(folder / "part");
    TrainPart("part", {"--tasks", "3", "--report-every", "1"}, lines - 1);
    const Json early = Result("whole");
    json_object_set_new(early.get(), "tasks_done", json_integer(1));
    char *const early_text = json_dumps(early.get(), 0);
    WriteFile(folder / "part/result.json", early_text);
    free(early_text);
    ASSERT_EQ(0, Plain({"part"}).code);
    EXPECT_TRUE(
        Has(Page("part"), "<strong>Unfinished:</strong> part has not finished; 3 of 3 tasks"));

    /* Cut in the middle of a line, once two tasks were done. */
    const size_t at = record.find("{\"event\":\"step\",\"task\":3");
    WriteFile(folder / "part/metrics.jsonl", record.substr(0, at + 30));
    Outcome outcome = Plain({"part"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    std::string page = Page("part");
    EXPECT_TRUE(Has(page, "2 of 3 tasks are done"));
    EXPECT_TRUE(Has(page, "The last line of part/metrics.jsonl is not whole"));
    const Json whole = Result("whole");
    double r[4];
    for (size_t i = 0; i < 4; i++)
        r[i] = Accuracy(whole.get(), i / 2, i % 2);
    const ewc_metrics measures = ewc_metrics_compute(r, nullptr, 2);
    char text[64];
    snprintf(text, sizeof text, "<dd>%.2f</dd>", 100.0 * measures.acc);
    EXPECT_TRUE(Has(page, text)) << text;
    EXPECT_EQ(1u + 2u + 1u, ReadCsv(folder / "part/eval_results.csv").size());

    /* Beside one that has finished. */
    outcome = Plain({"part", "whole", "--out", "both"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    page = Page("both");
    EXPECT_TRUE(Has(page, "\">ewc (unfinished)</h2>"));
    EXPECT_TRUE(Has(page, "\">ewc</h2>"));

    /* One that failed says why. */
    WriteFile(folder / "part/metrics.jsonl",
        record.substr(0, at) +
            "{\"event\":\"error\",\"status\":\"X\",\"message\":\"all <lost>\"}\n");
    ASSERT_EQ(0, Plain({"part"}).code);
    EXPECT_TRUE(Has(Page("part"), "The run ended with: all &lt;lost&gt;"));

    /* Without its record only the result is shown. */
    std::filesystem::remove(folder / "whole/metrics.jsonl");
    ASSERT_EQ(0, Plain({"whole"}).code);
    EXPECT_TRUE(Has(Page("whole"), "whole/metrics.jsonl is missing"));
}

TEST_F(Report, FoldersThatAreNoRunOrBroken)
{
    Train("good", {"--tasks", "2"});
    std::filesystem::create_directory(folder / "empty");
    ExpectRefused(2, "names no run", {"report"});
    ExpectRefused(2, "nowhere: no such folder", {"report", "nowhere"});
    ExpectRefused(2, "nowhere: no such folder", {"report", "good", "nowhere"});
    ExpectRefused(
        2, "train-images-idx3-ubyte: not a folder", {"report", "train-images-idx3-ubyte"});
    ExpectRefused(
        2, "empty: not the folder of a run: config.json is missing", {"report", "empty/"});
    ExpectRefused(2, "good/: given twice", {"report", "good", "good/"});
    ExpectRefused(2, "--out: names no folder", {"report", "good", "--out="});
    ExpectRefused(2, "--tensorboard", {"report", "good", "--tensorboard=maybe"});
    ExpectRefused(2, "--lambda: unknown flag", {"report", "good", "--lambda", "3"});
    ExpectRefused(1, "good/config.json", {"report", "good", "--out", "good/config.json/x"});
    std::string longest = "page"; /* has room for a folder "figures", and for no file in it */
    while (longest.size() < 4080)
        longest.insert(0, "./");
    EXPECT_EQ(1, Plain({"good", "--out", longest}).code);
    std::filesystem::copy(folder / "good/config.json", folder / "empty/config.json");
    ExpectRefused(2, "empty: nothing has been trained", {"report", "empty"});

    const struct {
        const char *file, *text, *culprit;
    } cases[] = {
        {"config.json", "", "bad/config.json: line 1: "},
        {"config.json", "{\n\n\"tasks\": }", "bad/config.json: line 3: "},
        {"config.json", "[]", "bad/config.json: line 1: is not a JSON object"},
        {"config.json", "{\"tasks\": 2, \"tasks\": 3}", "bad/config.json: line 1: "},
        {"result.json", "{", "bad/result.json: line 1: "},
        {"result.json", "null", "bad/result.json: line 1: "},
        {"metrics.jsonl", "{}\n{}\n{\"event\"\n{}\n", "bad/metrics.jsonl: line 3: "},
        {"metrics.jsonl", "{}\n\n{}\n", "bad/metrics.jsonl: line 2: "},
        {"metrics.jsonl", "{}\n7\n{}\n", "bad/metrics.jsonl: line 2: "},
    };
    for (const auto &broken : cases) {
        std::filesystem::remove_all(folder / "bad");
        std::filesystem::copy(
            folder / "good", folder / "bad", std::filesystem::copy_options::recursive);
        WriteFile(folder / (std::string("bad/") + broken.file), broken.text);
        ExpectRefused(3, broken.culprit, {"report", "bad"});
        ExpectRefused(3, broken.culprit, {"report", "good", "bad", "--out", "no"});
        EXPECT_FALSE(Exists(folder / "no"));
    }
    /* A folder in a file's place; and more tasks than a matrix of them has room for. */
    std::filesystem::remove_all(folder / "bad");
    std::filesystem::create_directories(folder / "bad/config.json");
    ExpectRefused(2, "config.json is missing", {"report", "bad"});
    std::filesystem::remove_all(folder / "bad");
    std::filesystem::create_directory(folder / "bad");
    WriteFile(folder / "bad/config.json", "{\"tasks\": 1000000000}");
    WriteFile(folder / "bad/metrics.jsonl", "{}\n");
    ExpectRefused(3, "no file says how many tasks", {"report", "bad"});
}

/* Puts other values in the place of each one of a JSON document, in turn: calls `look` for each. Of
 * all kinds of values two at a place, other ones at the next. */
class Distortion
{
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t kEvery = 3; /* the others take minutes there */
#else
    static constexpr size_t kEvery = 1;
#endif
    const json_t *root;
    std::function<void(const json_t *)> look;
    size_t next = 0;

    void TryAt(json_t *old, const std::function<void(json_t *)> &put)
    {
        static const char *const values[] = {"null", "\"x\"", "-1", "1e308", "[]", "{}", "[[{}]]",
            "9223372036854775807", "true", "-9223372036854775808", "4611686018427387904"};
        json_incref(old);
        for (int i = 0; i < 2; i++, next++) {
            if (next % kEvery != 0) continue;
            put(json_loads(values[next % std::size(values)], JSON_DECODE_ANY, nullptr));
            look(root);
        }
        put(old);
    }

  public:
    Distortion(const json_t *whole, std::function<void(const json_t *)> f)
        : root(whole), look(std::move(f))
    {
    }
    void Run(json_t *at)
    {
        if (json_is_object(at)) {
            std::vector<std::string> keys;
            for (void *i = json_object_iter(at); i; i = json_object_iter_next(at, i))
                keys.push_back(json_object_iter_key(i));
            for (const std::string &key : keys) {
                TryAt(json_object_get(at, key.c_str()),
                    [&](json_t *value) { json_object_set_new(at, key.c_str(), value); });
                Run(json_object_get(at, key.c_str()));
            }
        } else if (json_is_array(at) && json_array_size(at) > 0) {
            TryAt(json_array_get(at, 0), [&](json_t *value) { json_array_set_new(at, 0, value); });
            Run(json_array_get(at, 0));
        }
    }
};

TEST_F(Report, ValuesOfAnyTypeAndSize)
{
    Train("run", {"--tasks", "2", "--fisher-overlap", "--eval-every", "5", "--report-every", "10"});
    const auto check = [&] {
        const Outcome outcome = Plain({"run", "--tensorboard"});
        EXPECT_TRUE(outcome.code == 0 || outcome.code == 2 || outcome.code == 3)
            << outcome.code << "\n"
            << outcome.err;
        if (outcome.code == 0) {
            EXPECT_EQ("", Malformed(ReadFile(folder / "run/report.html")));
        }
    };
    for (const char *file : {"config.json", "result.json"}) {
        const std::string path = folder / (std::string("run/") + file), good = ReadFile(path);
        const Json json = ParseJson(good);
        Distortion distortion(json.get(), [&](const json_t *changed) {
            char *const text = json_dumps(changed, 0);
            SCOPED_TRACE(std::string(text).substr(0, 2000));
            WriteFile(path, text);
            free(text);
            check();
        });
        distortion.Run(json.get());
        WriteFile(path, good);
    }
    /* One line of each kind. */
    const std::string path = folder / "run/metrics.jsonl", good = ReadFile(path);
    std::filesystem::remove(folder / "run/result.json"); /* then the record decides */
    std::vector<std::string> lines;
    std::istringstream in(good);
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    std::map<std::string, size_t> kinds; /* the last line of each */
    for (size_t i = 0; i < lines.size(); i++)
        kinds[lines[i].substr(0, 16)] = i;
    for (const auto &kind : kinds) {
        const Json json = ParseJson(lines[kind.second]);
        Distortion distortion(json.get(), [&](const json_t *changed) {
            char *const line = json_dumps(changed, JSON_COMPACT);
            SCOPED_TRACE(std::string(line).substr(0, 2000));
            std::string text;
            for (size_t i = 0; i < lines.size(); i++)
                text += (i == kind.second ? line : lines[i]) + "\n";
            free(line);
            WriteFile(path, text);
            check();
        });
        distortion.Run(json.get());
    }
}

/* A folder that was given, say unpacked from a download, may hold links to what is the user's own.
 */
TEST_F(Report, LinksInARunsFolderLeadNowhere)
{
    Train("run", {"--tasks", "2"});
    WriteFile(folder / "precious", "mine");
    std::filesystem::create_directories(folder / "run/figures");
    std::vector<std::string> links = {"report.html", "report.html.part", "eval_results.csv",
        "eval_results.csv.part", "summary.csv", "summary.tex", "events.out.tfevents.ewc"};
    for (const char *kind : {"svg", "png", "pdf", "csv", "csv.part"})
        links.push_back(std::string("figures/mean-accuracy.") + kind);
    for (const std::string &link : links)
        std::filesystem::create_symlink(folder / "precious", folder / ("run/" + link));
    for (const bool drawn : {false, true}) {
        if (drawn && !Gnuplot()) break;
        const Words words = {"report", "run", "--tensorboard"};
        const Outcome outcome = drawn ? Ewc(words) : Plain({words.begin() + 1, words.end()});
        ASSERT_EQ(0, outcome.code) << outcome.err;
        EXPECT_EQ("mine", ReadFile(folder / "precious"));
    }
    for (const char *file : {"report.html", "eval_results.csv", "figures/mean-accuracy.csv"})
        EXPECT_FALSE(std::filesystem::is_symlink(folder / (std::string("run/") + file))) << file;
    Page("run");

    /* Nor does a folder in it. */
    std::filesystem::remove_all(folder / "run/figures");
    std::filesystem::create_directory(folder / "elsewhere");
    std::filesystem::create_directory_symlink(folder / "elsewhere", folder / "run/figures");
    ExpectRefused(1, "run/figures: is a symbolic link, which is not followed", {"report", "run"});
    EXPECT_TRUE(std::filesystem::is_empty(folder / "elsewhere"));
}

/* Of 400,000 reports, 42 MB, no more are held than a page can show; their means stay. */
TEST_F(Report, ALongRecordIsReadInLittleMemory)
{
    Train("run", {"--tasks", "1"});
    const int64_t steps = 400000;
    std::string record = "{\"event\":\"begin\",\"tasks\":1}\n"
                         "{\"event\":\"task-begin\",\"task\":1,\"steps\":400000}\n";
    for (int64_t i = 1; i <= steps; i++)
        record += "{\"event\":\"step\",\"task\":1,\"step\":" + std::to_string(i) +
                  ",\"epoch\":1,\"loss\":" + (i % 2 ? "3.0" : "1.0") +
                  ",\"penalty\":" + (i % 2 ? "0.0" : "1.0") +
                  ",\"lr\":0.001,\"seconds\":" + std::to_string(0.001 * (double)i) + "}\n";
    record += "{\"event\":\"task-end\",\"task\":1,\"step\":400000}\n"
              "{\"event\":\"evaluated\",\"task\":1,\"step\":0,\"task_end\":true,"
              "\"accuracy\":[0.5]}\n";
    WriteFile(folder / "run/metrics.jsonl", record);
    const Outcome outcome = Plain({"run"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_TRUE(Has(Page("run"), "run/metrics.jsonl is long: of what it reports in the middle of "
                                 "tasks, one report here stands for up to 4."));
    auto rows = ReadCsv(folder / "run/figures/penalty-share.csv");
    ASSERT_EQ(1u + 120u, rows.size());
    for (size_t i = 1; i < rows.size(); i++)
        ASSERT_NEAR(20.0, std::stod(rows[i][2]), 1e-4) << i; /* 0.5 of 2 + 0.5 */
    rows = ReadCsv(folder / "run/figures/throughput.csv");
    ASSERT_EQ(1u + 120u, rows.size());
    for (size_t i = 1; i < rows.size(); i++)
        ASSERT_NEAR(16000.0, std::stod(rows[i][2]), 10.0) << i; /* 1000 steps of 16 a second */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    rusage usage;
    ASSERT_EQ(0, getrusage(RUSAGE_CHILDREN, &usage));
    EXPECT_LT(usage.ru_maxrss, 300 << 10) << "KiB of memory";
#endif

    /* A line that never ends is refused. */
    WriteFile(folder / "run/metrics.jsonl", "{}\n" + std::string((64 << 20) + 1, ' '));
    ExpectRefused(3, "run/metrics.jsonl: line 2: is longer than 64 MiB", {"report", "run"});
}

TEST_F(Report, WithoutGnuplot)
{
    Train("run", {"--tasks", "2"});
    Outcome outcome = Plain({"run"});
    ASSERT_EQ(0, outcome.code) << outcome.err;
    EXPECT_EQ(1, std::count(outcome.err.begin(), outcome.err.end(), '\n')) << outcome.err;
    EXPECT_TRUE(Has(outcome.err, "gnuplot is not on PATH")) << outcome.err;
    EXPECT_TRUE(Exists(folder / "run/figures/mean-accuracy.csv"));
    EXPECT_FALSE(Exists(folder / "run/figures/mean-accuracy.svg"));
    const std::string page = Page("run");
    EXPECT_TRUE(Has(page, "gnuplot was not found"));
    EXPECT_TRUE(Has(page, "figures/mean-accuracy.csv"));
    EXPECT_FALSE(Has(page, ".svg"));

    /* One that does not work says why; the page is not written. */
    std::filesystem::remove(folder / "run/report.html");
    std::filesystem::create_directory(folder / "bin");
    const std::string fake = folder / "bin/gnuplot";
    WriteFile(fake, "#!/bin/sh\necho 'line 7: no such terminal' >&2\necho >&2\nexit 1\n");
    std::filesystem::permissions(fake, std::filesystem::perms::owner_all);
    environment.push_back("PATH=" + folder / "bin" + ":/usr/bin:/bin");
    outcome = Ewc({"report", "run"});
    EXPECT_EQ(1, outcome.code);
    EXPECT_EQ(
        "ewc report: gnuplot, drawing mean-accuracy: line 7: no such terminal\n", outcome.err);
    EXPECT_EQ("", outcome.out);
    EXPECT_FALSE(Exists(folder / "run/report.html"));

    /* A signal ends a drawing that takes long. */
    WriteFile(fake, "#!/bin/sh\necho > " + folder / "drawing" + "\nexec sleep 100\n");
    const pid_t child = Start({"report", "run"});
    while (!Exists(folder / "drawing"))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, SIGTERM);
    outcome = Wait(child);
    EXPECT_EQ(128 + SIGTERM, outcome.code);
    EXPECT_TRUE(Has(outcome.err, "stopped by")) << outcome.err;
}

/* The figures' numbers, worked out by hand from a record and a result made up for it. */
TEST_F(Report, TheNumbersOfFiguresAreThoseOfTheRecord)
{
    Train("run", {"--tasks", "3", "--eval-samples", "0"});
    const auto step = [](int task, int at, const char *loss, const char *penalty, double seconds) {
        return "{\"event\":\"step\",\"task\":" + std::to_string(task) +
               ",\"step\":" + std::to_string(at) + ",\"loss\":" + loss + ",\"penalty\":" + penalty +
               ",\"seconds\":" + std::to_string(seconds) + "}\n";
    };
    const auto task = [](int number, const std::string &steps) {
        const std::string t = "\"task\":" + std::to_string(number);
        return "{\"event\":\"task-begin\"," + t + ",\"steps\":20}\n" + steps +
               "{\"event\":\"task-end\"," + t + ",\"step\":20}\n" +
               (number != 2 ? ""
                            : "{\"event\":\"fisher\"," + t +
                                  ",\"segments\":{\"fc1.weight\":{\"trace\":3.0,\"zeros\":5,"
                                  "\"log2_from\":-7,\"log2_counts\":[1,0,2]},\"fc1.bias\":{"
                                  "\"trace\":1.0,\"zeros\":0,\"log2_from\":-6,\"log2_counts\":[2]}"
                                  "}}\n");
    };
    WriteFile(folder / "run/metrics.jsonl",
        "{\"event\":\"begin\",\"tasks\":3}\n" +
            task(1, step(1, 10, "2.0", "null", 0.5) + step(1, 20, "1.0", "null", 0.75)) +
            task(2, step(2, 10, "3.0", "1.0", 1.0) + step(2, 20, "0.5", "0.0", 1.25)) +
            task(3, step(3, 10, "0.25", "0.75", 0.125) + step(3, 20, "0.0", "0.0", 2.125)));
    const Json result = Result("run");
    json_object_set_new(result.get(), "accuracy",
        json_loads("[[0.9, null, null], [0.95, 0.8, null], [0.5, 0.85, 0.7]]", 0, nullptr));
    char *const text = json_dumps(result.get(), 0);
    WriteFile(folder / "run/result.json", text);
    free(text);
    ASSERT_EQ(0, Plain({"run", "--tensorboard"}).code);
    const auto expect = [&](const char *name, const std::vector<std::array<double, 2>> &points) {
        SCOPED_TRACE(name);
        const auto rows = ReadCsv(folder / (std::string("run/figures/") + name + ".csv"));
        ASSERT_EQ(points.size(), rows.size() - 1);
        for (size_t i = 0; i < points.size(); i++) {
            EXPECT_NEAR(points[i][0], std::stod(rows[1 + i][1]), 1e-6) << i;
            EXPECT_NEAR(points[i][1], std::stod(rows[1 + i][2]), 1e-6) << i;
        }
    };
    /* penalty / (loss + penalty); none in the first task, nor where both are 0. */
    expect("penalty-share", {{30, 25}, {40, 0}, {50, 75}});
    /* 10 steps of 16 samples in the time since the report before, in the same task. */
    expect("throughput", {{10, 320}, {20, 640}, {30, 160}, {40, 640}, {50, 1280}, {60, 80}});
    /* The best before the last task, less what is left: task 1 was best after task 2; task 2
     * gained. */
    expect("forgetting", {{1, 45}, {2, -5}});
    /* A count at log2 F in -7..-6 is drawn in the middle of it; 5 of 10 weights are 0. */
    const double two = std::log10(2.0);
    expect("fisher-histogram", {{-6.5 * two, 10}, {-5.5 * two, 20}, {-4.5 * two, 20}});

    /* In TensorBoard's events the steps of all tasks follow each other. */
    std::vector<Scalar> losses;
    for (const Scalar &scalar : ReadScalars(ReadFile(folder / "run/events.out.tfevents.ewc")))
        if (scalar.tag == "training/loss") losses.push_back(scalar);
    const double expected[] = {2.0, 1.0, 3.0, 0.5, 0.25, 0.0};
    ASSERT_EQ(6u, losses.size());
    for (size_t i = 0; i < 6; i++) {
        EXPECT_EQ(10 * (i + 1), losses[i].step);
        EXPECT_EQ(expected[i], losses[i].value);
    }
    /* Seconds of each task, one after another: its last report ends it. */
    EXPECT_NEAR(0.75 + 1.25 + 2.125, losses[5].seconds - losses[0].seconds + 0.5, 1e-3);

    /* Of noisier numbers than the last row's the largest says little. */
    json_object_set_new(result.get(), "accuracy_samples",
        json_loads("[[100, 0, 0], [50, 100, 0], [100, 100, 100]]", 0, nullptr));
    char *const noisy = json_dumps(result.get(), 0);
    WriteFile(folder / "run/result.json", noisy);
    free(noisy);
    ASSERT_EQ(0, Plain({"run"}).code);
    expect("forgetting", {{1, 40}, {2, -5}});
}

/* Read by TensorBoard's own reader, which checks lengths and checksums. */
TEST_F(Report, TensorBoardReadsTheEvents)
{
    Train("run", {"--tasks", "2", "--eval-every", "5", "--report-every", "4"});
    ASSERT_EQ(0, Plain({"run", "--tensorboard"}).code);
    const std::string bytes = ReadFile(folder / "run/events.out.tfevents.ewc");
    ASSERT_GT(bytes.size(), 40u);
    EXPECT_TRUE(Has(bytes.substr(0, 60), "brain.Event:2"));
    if (std::system("python3 -c 'import tensorboard' 2>/dev/null") != 0)
        GTEST_SKIP() << "no TensorBoard for python3";
    WriteFile(folder / "read.py",
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})\n"
        "events.Reload()\n"
        "json.dump({tag: [[e.step, e.value] for e in events.Scalars(tag)]\n"
        "           for tag in events.Tags()['scalars']}, open(sys.argv[2], 'w'))\n");
    const std::string command = "cd '" + folder.path() + "' && python3 read.py run read.json";
    ASSERT_EQ(0, std::system((command + " 2>/dev/null").c_str()));
    const Json read = ParseJson(ReadFile(folder / "read.json"));
    const Json result = Result("run");

    const json_t *const acc = json_array_get(json_object_get(read.get(), "measures/ACC"), 0);
    EXPECT_NEAR(Number(result.get(), "acc"), json_number_value(json_array_get(acc, 1)), 1e-6);
    for (size_t t = 0; t < 2; t++) {
        const json_t *const curve =
            json_object_get(read.get(), ("accuracy/task " + std::to_string(t + 1)).c_str());
        ASSERT_GT(json_array_size(curve), 2u);
        const json_t *const last = json_array_get(curve, json_array_size(curve) - 1);
        EXPECT_EQ(26, json_integer_value(json_array_get(last, 0))); /* 2 tasks of 13 batches */
        EXPECT_NEAR(Accuracy(result.get(), 1, t), json_number_value(json_array_get(last, 1)), 1e-6);
    }
    /* Every step event, at its step. */
    std::istringstream lines(ReadFile(folder / "run/metrics.jsonl"));
    const json_t *const losses = json_object_get(read.get(), "training/loss");
    size_t count = 0;
    for (std::string line; std::getline(lines, line);) {
        const Json event = ParseJson(line);
        if (json_string_value(json_object_get(event.get(), "event")) != std::string("step"))
            continue;
        const json_t *const point = json_array_get(losses, count++);
        EXPECT_EQ(13 * (Number(event.get(), "task") - 1) + Number(event.get(), "step"),
            (double)json_integer_value(json_array_get(point, 0)));
        EXPECT_NEAR(Number(event.get(), "loss"), json_number_value(json_array_get(point, 1)), 1e-5);
    }
    EXPECT_EQ(count, json_array_size(losses));
    EXPECT_GT(count, 4u);
    for (const char *tag : {"training/penalty", "training/learning rate", "fisher trace/fc1.weight",
             "accuracy/mean over tasks seen", "measures/forgetting"})
        EXPECT_GT(json_array_size(json_object_get(read.get(), tag)), 0u) << tag;
}
} // namespace
