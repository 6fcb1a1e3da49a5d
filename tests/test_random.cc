/* SPDX-License-Identifier: MIT */
/* Random words against published vectors and an oracle; shuffles are bijections. */
#include "host/base/random.h"
#include "support/check.hpp"
#include "support/reference.hpp"

using namespace test;

namespace
{
struct KnownAnswer {
    reference::Words counter;
    uint32_t key[2];
    reference::Words words;
};
/* Philox4x32-10 of the generator's authors: counter and key all 0, all ones, digits of pi. */
const KnownAnswer kKnown[] = {
    {{{0, 0, 0, 0}}, {0, 0}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
    {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, {0xffffffff, 0xffffffff},
        {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
    {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, {0xa4093822, 0x299f31d0},
        {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
};

/* The counter's words in the engine's terms: index (low, high), time, task and stream. */
ewci_words Engine(const reference::Words &c, const uint32_t *key)
{
    return ewci_random((uint64_t)key[1] << 32 | key[0], c.w[3] & 15, c.w[3] >> 4, c.w[2],
        (uint64_t)c.w[1] << 32 | c.w[0]);
}
} // namespace

TEST(Random, KnownAnswers)
{
    for (const KnownAnswer &known : kKnown) {
        const ewci_words got = Engine(known.counter, known.key);
        const reference::Words ours = reference::Philox(known.counter, known.key[0], known.key[1]);
        for (int i = 0; i < 4; i++) {
            EXPECT_EQ(known.words.w[i], got.w[i]);
            EXPECT_EQ(known.words.w[i], ours.w[i]) << "the oracle";
        }
    }
}

TEST(Random, MatchesTheOracle)
{
    Rng rng(1);
    for (int n = 0; n < 1000; n++) {
        const reference::Words counter = {{(uint32_t)rng.Word(), (uint32_t)rng.Word(),
            (uint32_t)rng.Word(), (uint32_t)rng.Word()}};
        const uint32_t key[2] = {(uint32_t)rng.Word(), (uint32_t)rng.Word()};
        const reference::Words want = reference::Philox(counter, key[0], key[1]);
        const ewci_words got = Engine(counter, key);
        const ewci_words host = ewci_host_random((uint64_t)key[1] << 32 | key[0], counter.w[3] & 15,
            counter.w[3] >> 4, counter.w[2], (uint64_t)counter.w[1] << 32 | counter.w[0]);
        for (int i = 0; i < 4; i++) {
            ASSERT_EQ(want.w[i], got.w[i]);
            ASSERT_EQ(want.w[i], host.w[i]);
        }
    }
}

TEST(Random, UniformsFillTheHalfOpenInterval)
{
    EXPECT_EQ(0.0f, ewci_uniform(0));
    EXPECT_LT(ewci_uniform(0xffffffffu), 1.0f);
    EXPECT_GT(ewci_uniform(0xffffffffu), 0.9999999f);
    /* 16 equal bins; chi-square with 15 degrees of freedom stays below 50 but once in 10^5. */
    const int n = 64000;
    double bins[16] = {};
    for (int i = 0; i < n / 4; i++) {
        const ewci_words words = ewci_random(Seed(), EWCK_STREAM_INIT, 0, 0, (uint64_t)i);
        for (const uint32_t w : words.w)
            bins[(int)(ewci_uniform(w) * 16.0f)]++;
    }
    double chi2 = 0.0;
    for (const double count : bins)
        chi2 += (count - n / 16.0) * (count - n / 16.0) / (n / 16.0);
    EXPECT_LT(chi2, 50.0);
}

TEST(Shuffle, IsTheBijectionOfTheOracle)
{
    for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 31, 257, 4096, 60000})
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            const ewci_words key = ewci_random(Seed(), EWCK_STREAM_SHUFFLE, 0, epoch, 0);
            const reference::Words words = {{key.w[0], key.w[1], key.w[2], key.w[3]}};
            std::vector<char> seen((size_t)n, 0);
            for (int64_t i = 0; i < n; i++) {
                const int64_t place = ewci_shuffle(i, n, key);
                ASSERT_EQ(reference::Shuffle(i, n, words), place) << "n " << n;
                ASSERT_TRUE(place >= 0 && place < n) << "n " << n;
                ASSERT_FALSE(seen[(size_t)place]) << "n " << n << ", twice: " << place;
                seen[(size_t)place] = 1;
            }
        }
}

/* Beyond 2^61 the whole order cannot be listed; its start keeps within bounds and never repeats. */
TEST(Shuffle, WorksOnHugeSets)
{
    const int64_t n = ((int64_t)1 << 61) + 12345;
    const ewci_words key = ewci_random(Seed(), EWCK_STREAM_SHUFFLE, 0, 0, 0);
    std::vector<int64_t> places;
    for (int64_t i = 0; i < 1000; i++)
        places.push_back(ewci_shuffle(i, n, key));
    const reference::Words words = {{key.w[0], key.w[1], key.w[2], key.w[3]}};
    EXPECT_EQ(reference::Shuffle(999, n, words), places[999]);
    std::sort(places.begin(), places.end());
    EXPECT_TRUE(places.front() >= 0 && places.back() < n);
    EXPECT_EQ(places.end(), std::adjacent_find(places.begin(), places.end()));
}

/* Seed, stream, task and epoch each give another order; none leaves many samples in place. */
TEST(Shuffle, EveryKeyIsAnotherOrder)
{
    const int64_t n = 1000;
    const ewck_step base = {7, 0, 0, EWCK_STREAM_SHUFFLE, 1, 1, 0, 0, 0};
    std::vector<ewck_step> steps(5, base);
    steps[1].seed = 8;
    steps[2].order = EWCK_STREAM_FISHER;
    steps[3].task = 2;
    steps[4].epoch = 2;
    std::vector<std::vector<int64_t>> orders;
    for (const ewck_step &step : steps) {
        std::vector<int64_t> order;
        for (int64_t i = 0; i < n; i++)
            order.push_back(ewci_sample(&step, i, n));
        for (const std::vector<int64_t> &other : orders) {
            int64_t same = 0;
            for (size_t i = 0; i < order.size(); i++)
                same += order[i] == other[i];
            EXPECT_LT(same, 10); /* expected: 1 */
        }
        orders.push_back(order);
    }
    ewck_step moved = base; /* the step's number and position do not change the order */
    moved.step = 99;
    moved.position = 17;
    EXPECT_EQ(ewci_sample(&base, 5, n), ewci_sample(&moved, 5, n));
    moved.order = EWCK_STREAM_NONE;
    EXPECT_EQ(5, ewci_sample(&moved, 5, n));
}

/* Where a sample goes must not depend on where its neighbour goes: over many keys every place is as
 * likely as any other for sample 0, and for the distance between samples 0 and 1. */
TEST(Shuffle, IsEvenOverKeys)
{
    const int64_t n = 10;
    const int keys = 20000;
    double place[10] = {}, distance[10] = {};
    for (uint32_t k = 0; k < (uint32_t)keys; k++) {
        const ewci_words key = ewci_random(Seed(), EWCK_STREAM_SHUFFLE, 0, k, 0);
        const int64_t a = ewci_shuffle(0, n, key), b = ewci_shuffle(1, n, key);
        place[a]++;
        distance[(b - a + n) % n]++;
    }
    double chi2 = 0.0, chi2_distance = 0.0;
    for (int i = 0; i < 10; i++) {
        chi2 += std::pow(place[i] - keys / 10.0, 2) / (keys / 10.0);
        if (i > 0) chi2_distance += std::pow(distance[i] - keys / 9.0, 2) / (keys / 9.0);
    }
    EXPECT_EQ(0.0, distance[0]);
    EXPECT_LT(chi2, 40.0); /* 9 and 8 degrees of freedom: once in 10^5 */
    EXPECT_LT(chi2_distance, 40.0);
}
