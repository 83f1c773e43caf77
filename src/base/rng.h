// A small seeded generator (xoshiro256**, seeded by splitmix64): the same numbers on every machine.
#pragma once

#include <cmath>
#include <cstdint>

namespace carat {

class Rng {
 public:
  // State is 4 words, plain data, so that a checkpoint can hold it.
  struct State {
    uint64_t word[4];
  };

  explicit Rng(uint64_t seed) {
    for (uint64_t& w : state_.word) {
      seed += 0x9e3779b97f4a7c15u;
      uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      w = z ^ (z >> 31);
    }
  }
  explicit Rng(const State& state) : state_(state) {}

  const State& state() const { return state_; }

  uint64_t next() {
    uint64_t* s = state_.word;
    const uint64_t result = rotl(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
  }

  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

  // Uniform in [0, n). REQUIRES: n > 0. The bias for n << 2^64 is below 2^-32 and accepted.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }

  // Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double u = 1.0 - uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniform());
  }

 private:
  static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  State state_;
};

}  // namespace carat
