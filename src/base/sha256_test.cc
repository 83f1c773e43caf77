#include "base/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace carat {
namespace {

std::vector<std::byte> pattern(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>((i * 7 + n) % 251);
  return bytes;
}

std::string hex_of_text(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

struct Expected {
  size_t n;
  const char* hex;
};
// Of pattern(n), by Python's hashlib.
const Expected kExpected[] = {
    {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {1, "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"},
    {3, "6ab0dba1f4f1dfbb37b4f9eeb092c09fca4900ad32bdcd147d8dde35d6c87c35"},
    {55, "d604dc83c754bb5890ec011f3fa0552324cb1412205b5a5e83fd17cd4afe57ed"},
    {56, "0371e3fd4911ce4109ac9aaddc0ebdfe28431802ef70a966cb245da585f2a37e"},
    {57, "bdce47d7bad9c7849a36531ae5ac19e3c4413c87c20f5d00ccda7dcd7c57bdb1"},
    {63, "de8f546e5d44d4fb35d25af2748ed9b6644d200d56b6b0b6e71b095b44348dc6"},
    {64, "35eb8c80b4af970a05040dd151d5edad6172957c1ded27e521fdcf526178feb3"},
    {65, "c96988663bcd3779da5b1c0e499742ff48bf6148d5c044326ce3e5845a80e6ab"},
    {119, "7fb3869648ad8420f2e1a20812a61ba45c3db01dc7b391d48c2a8c1d6f41be35"},
    {120, "9db2bb35e3e98f502b654e82f0051eebfa45015e36ed8c3a28d44586eff7372b"},
    {127, "f2a5ec436d60185c6d1c274da6d60d8e38d7de6b739c0fbd043d0de24db2b7ad"},
    {128, "086e64af3be4bef59202dea267776bbbbe6264ad9ff0b46345743fffc446238e"},
    {1000, "e66c6563e3797f84573ef7dfe3a460d5d579967297ef20150d89f0c6e358221e"},
    {4101, "b741af29a13f78270d2a5fec0a424a6b113d48b1685cc35a566ac07881755523"},
};

TEST(Sha256, ExamplesOfTheStandard) {
  EXPECT_EQ(hex_of_text("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex_of_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex_of_text(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, EveryLengthOfPadding) {
  for (const Expected& e : kExpected) EXPECT_EQ(sha256_hex(pattern(e.n)), e.hex) << e.n;
}

TEST(Sha256, PiecesGiveTheSameAsTheWhole) {
  const std::vector<std::byte> all = pattern(4101);
  for (const size_t piece : {1u, 3u, 63u, 64u, 65u, 200u}) {
    Sha256 sum;
    for (size_t at = 0; at < all.size(); at += piece) {
      sum.update(std::span(all).subspan(at, std::min(piece, all.size() - at)));
      (void)sum.digest();  // asking does not disturb
    }
    EXPECT_EQ(to_hex(sum.digest()), kExpected[std::size(kExpected) - 1].hex) << piece;
    EXPECT_EQ(sum.bytes(), 4101);
  }
}

TEST(Sha256, ACopyGoesItsOwnWay) {
  Sha256 one;
  one.update(std::as_bytes(std::span("ab", 2)));
  Sha256 two = one;
  two.update(std::as_bytes(std::span("c", 1)));
  one.update(std::as_bytes(std::span("x", 1)));
  EXPECT_EQ(to_hex(two.digest()), hex_of_text("abc"));
  EXPECT_EQ(to_hex(one.digest()), hex_of_text("abx"));
  one = two;
  EXPECT_EQ(one.digest(), two.digest());
  EXPECT_EQ(one.bytes(), 3);
}

TEST(Sha256, TellsDigestsFromOtherTexts) {
  const std::string hex = hex_of_text("");
  EXPECT_TRUE(is_sha256_hex(hex));
  EXPECT_FALSE(is_sha256_hex(hex.substr(1)));
  EXPECT_FALSE(is_sha256_hex(hex.substr(1) + "g"));
}

}  // namespace
}  // namespace carat
