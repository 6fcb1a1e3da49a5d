/* SPDX-License-Identifier: MIT */
/* Files as other programs pack them: gzip, xz, and zip archives of arrays. */
#ifndef EWC_TESTS_PACKED_HPP
#define EWC_TESTS_PACKED_HPP

#include <zlib.h>
#ifdef EWC_HAVE_LZMA
#include <lzma.h>
#endif

#include "check.hpp"

namespace test
{
using Bytes = std::string;

/* zlib's window bits: 15 + 16 gzip, -15 raw, 15 zlib. */
inline Bytes Deflate(const Bytes &bytes, int window)
{
    z_stream z{};
    EXPECT_EQ(Z_OK, deflateInit2(&z, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY));
    Bytes out(deflateBound(&z, bytes.size()) + 64, '\0');
    z.next_in = (Bytef *)bytes.data();
    z.avail_in = (uInt)bytes.size();
    z.next_out = (Bytef *)out.data();
    z.avail_out = (uInt)out.size();
    EXPECT_EQ(Z_STREAM_END, deflate(&z, Z_FINISH));
    out.resize(out.size() - z.avail_out);
    deflateEnd(&z);
    return out;
}

/* x in n bytes. */
inline Bytes Little(uint64_t x, int n)
{
    Bytes out;
    for (int i = 0; i < n; i++)
        out += (char)(x >> (8 * i));
    return out;
}

/* A zip archive as numpy.savez makes it; wide: with sizes and places of 64 bits. */
inline Bytes Zip(const std::vector<std::pair<std::string, Bytes>> &members, bool deflate,
    int method = -1, uint32_t flip = 0, bool wide = false)
{
    const uint64_t all = 0xffffffff; /* of 32 bits: see the extra field */
    Bytes out, directory;
    for (const auto &[name, data] : members) {
        const Bytes packed = deflate ? Deflate(data, -15) : data;
        const uint32_t crc =
            (uint32_t)crc32(0, (const Bytef *)data.data(), (uInt)data.size()) ^ flip;
        const Bytes common = Little(20, 2) + Little(0, 2) +
                             Little((uint64_t)(method >= 0 ? method
                                               : deflate   ? 8
                                                           : 0),
                                 2) +
                             Little(0, 4) + Little(crc, 4) + Little(wide ? all : packed.size(), 4) +
                             Little(wide ? all : data.size(), 4) + Little(name.size(), 2);
        const Bytes extra = wide ? Little(7, 2) + Little(2, 2) + "??" + Little(1, 2) +
                                       Little(24, 2) + Little(data.size(), 8) +
                                       Little(packed.size(), 8) + Little(out.size(), 8)
                                 : "";
        directory += Little(0x02014b50, 4) + Little(20, 2) + common + Little(extra.size(), 2) +
                     Little(0, 2) + Little(0, 2) + Little(0, 2) + Little(0, 4) +
                     Little(wide ? all : out.size(), 4) + name + extra;
        out += Little(0x04034b50, 4) + common + Little(0, 2) + name + packed;
    }
    return out + directory + Little(0x06054b50, 4) + Little(0, 4) + Little(members.size(), 2) +
           Little(members.size(), 2) + Little(directory.size(), 4) + Little(out.size(), 4) +
           Little(0, 2);
}

#ifdef EWC_HAVE_LZMA
inline Bytes Xz(const Bytes &bytes)
{
    Bytes out(lzma_stream_buffer_bound(bytes.size()), '\0');
    size_t used = 0;
    EXPECT_EQ(LZMA_OK,
        lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr, (const uint8_t *)bytes.data(),
            bytes.size(), (uint8_t *)out.data(), &used, out.size()));
    out.resize(used);
    return out;
}
#endif
} // namespace test

#endif
