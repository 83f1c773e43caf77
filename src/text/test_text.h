// A text for tests: the opening of "A Tale of Two Cities" and of "The Raven" (both public domain),
// with blank lines, digits, an accent and a run of spaces.
#pragma once

#include <string_view>

namespace carat::text {

inline constexpr std::string_view kTestText =
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age "
    "of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
    "season "
    "of Light, it was the season of Darkness, it was the spring of hope, it was the winter of "
    "despair, we had everything before us, we had nothing before us, we were all going direct to "
    "Heaven, we were all going direct the other way - in short, the period was so far like the "
    "present period, that some of its noisiest authorities insisted on its being received, for "
    "good "
    "or for evil, in the superlative degree of comparison only.\n\n"
    "There were a king with a large jaw and a queen with a plain face, on the throne of England; "
    "there were a king with a large jaw and a queen with a fair face, on the throne of France. In "
    "both countries it was clearer than crystal to the lords of the State preserves of loaves and "
    "fishes, that things in general were settled for ever.\n\n"
    "It was the year of Our Lord one thousand seven hundred and seventy-five (1775). Spiritual "
    "revelations were conceded to England at that favoured period, as at this.\n\n\n"
    "    Once upon a midnight dreary, while I pondered, weak and weary,\n"
    "    Over many a quaint and curious volume of forgotten lore -\n"
    "    While I nodded, nearly napping, suddenly there came a tapping,\n"
    "    As of some one gently rapping, rapping at my chamber door.\n"
    "    \"'Tis some visitor,\" I muttered, \"tapping at my chamber door -\n"
    "    Only this and nothing more.\"\n\n"
    "    Ah, distinctly I remember it was in the bleak December;\n"
    "    And each separate dying ember wrought its ghost upon the floor.\n"
    "    Eagerly I wished the morrow; - vainly I had sought to borrow\n"
    "    From my books surcease of sorrow - sorrow for the lost Lenore -\n"
    "    For the rare and radiant maiden whom the angels name Lenore -\n"
    "    Nameless here for evermore.\n\n"
    "Caf\u00e9, caf\u00e9s, caf\u00e9. It's the cat's; don't.\n";

}  // namespace carat::text
