"""The words of the "sentiment" reward: a small English lexicon of our own, by strength.

Written for this package from general knowledge of the language; it is not derived from another lexicon. Inflected
forms are found through their stems (see `lexical.Sentiment`), so that mostly base forms stand here.
"""

_BY_STRENGTH: dict[float, str] = {
    3.0: """
        adore amazing astonishing astounding awesome beautiful best blissful breathtaking brilliant delightful
        ecstatic excellent exceptional exhilarating exquisite extraordinary fabulous fantastic flawless genius
        glorious gorgeous greatest hilarious incredible love magical magnificent marvelous marvellous masterful
        masterpiece masterwork outstanding overjoyed perfect perfection phenomenal riveting sensational spectacular
        splendid stellar stunning sublime superb terrific thrilled triumph unforgettable wonderful wondrous yay
    """,
    2.0: """
        absorbing accomplished admirable admire adorable affection affectionate appealing appreciate artful beauty
        bless blessed bliss blessing brave bravo bright captivating celebrate celebration champion charm charming
        cheer cheerful clever compelling compassion compassionate congratulations creative cute dazzling delicious
        delicate delight deft dream eager elegant engaging engrossing enjoy enjoyable enjoyment entertain
        entertaining enthusiasm enthusiastic excite excited exciting fascinating favorite favourite fortunate
        fresh friendly fun funny gem generous gentle gifted glad good goodness gracious grateful great grin
        gripping happiness happy haha heartfelt heartwarming hooray hope hopeful hug humor imaginative impress
        impressive ingenious insightful inspire inspired inspiring intelligent inventive joy joyful joyous keen
        kind kindness kiss laugh lively lol lovable lovely lovingly luck lucky luminous lyrical memorable
        mesmerizing nice nuanced original passion passionate peaceful pleasant pleased pleasure playful poetic
        poignant polished powerful praise pretty proud rejoice refreshing remarkable rich romantic satisfied
        satisfying sexy sharp shine sincere skillful smart smile soulful sparkle stirring strong success
        successful suspenseful sweet sympathetic talent talented tender thank thankful thanks thoughtful thrill
        thrilling touching treasure treat uplifting vibrant victory vivid warm warmth welcome win winner winning
        wise witty woohoo worthwhile wow xoxo
    """,
    1.0: """
        able accept achieve adequate adventure agree agreeable amiable amuse amusing animated authentic better
        bold calm care careful catchy class classic clean clear colorful comfort comfortable comic competent
        confident convincing cool courage credible crisp decent deep dynamic ease easy effective enough
        energetic energy epic ethereal fair faithful fine fluid free friend gain game genuine gift grace handsome
        harmony heart help helpful honest honesty honor humane humorous improve interest interesting intriguing
        intimate intense intrigue involving like likable likeable mature merry moving natural neat noble ok okay
        optimistic patient peace perceptive play please polite positive potent prize promise promising quirky
        ready recommend relax relaxed reliable relief respect reward rewarding safe satisfy save sensitive
        sensual serene share sleek slick smooth solid soothing special spirit spirited steady stylish subtle
        suitable support sure surprising terrifically timeless tribute true trust truth unique useful valuable
        visual visionary vitality wealth wit worth worthy yes yummy
    """,
    -1.0: """
        absence absurd aimless alone anxious apart average avoid awkward bizarre bland blank blame boredom
        broken busy careless cheap cliche cliched clumsy cold complain complicated confess confused contrived
        conventional cough cruel cynical damp dark delay derivative desperate difficult dirty disjointed dirt
        doubt drag dry dubious empty erratic excuse exhaust exploit fake familiar flat flimsy forced
        forgettable formula formulaic generic gimmick grave grim guilty hard heavy hesitate hollow ill
        implausible imitation incoherent indifferent insecure interrupt jealous lack lame late leave limp lonely
        lose loss lost loud lukewarm mannered melodramatic merely minor miss missing mistake moan monotonous muddled
        nervous nobody numb obvious odd old overlong overwrought pale plod plodding poorly pointless predictable
        pressure problem prolonged pretentious puzzled random refuse regret reject repetitive restless routine
        rushed scare scattered schlock shallow shame shapeless short shy sigh silly simplistic slight slow sneer
        soft sleepy sour stale standard stiff stock strain strange struggle stuck superficial surrender suspicious
        tangled tepid tense thin tired tiresome trouble unclear uneven unfocused unfunny unlikely unsure upset
        vague wait wander warn weak weary weird wooden worn worry wrong yawn
    """,
    -2.0: """
        abandon ache afraid aggressive alarm anger angry annoy annoyed annoying argue argh arrogant ashamed attack
        bad banal beat bitter bleak boring bore bomb bullshit burden clunky coward crap crash crazy creepy
        crime cry damage damn danger dangerous dead deadly death debt defeat depress depressed depressing derail
        despair destroy die disappoint disappointed disappointing disappointment disaster dishonest dislike
        dismal distress disturb doom dread dreary dull dumb enemy evil fail failure fault fear fight flaw flawed
        fool foolish fraud frighten frustrate frustrated frustrating furious garbage grief gross grumpy hamfisted helpless
        harm harsh hate headache heartless heartbroken hopeless hostile humiliate hurt idiot idiotic ignorant ignore
        inane inept
        inferior insipid insult irritate irritating irrelevant junk kill lackluster laughable lazy lie lifeless
        loser ludicrous mad mean mediocre mess messy misfire misguided miserable moron murder nasty negative
        nonsense obnoxious offensive pain painful panic pathetic poison poor preposterous punish rage ridiculous
        rip rotten rude ruin sad sadly sadness scream selfish sham shit sick slog sloppy sob soggy sorry soulless
        spoil stink stinks stupid suck suffer tasteless tedious tedium terror threat trash trite turkey ugly
        unappealing unbearable uncomfortable unconvincing uninspired unhappy uninteresting unnecessary unpleasant
        useless vile violence violent vulgar war waste whine worse wound wreck wtf
    """,
    -3.0: """
        abominable abuse abysmal agony appalling atrocious awful catastrophe catastrophic cruelty despicable
        detest devastate devastated devastating disgrace disgraceful disgust disgusted disgusting dreadful
        excruciating ghastly godawful hateful heartbreak hell hideous horrendous horrible horrid horrific horror
        horrifying insufferable insulting intolerable loathe misery nightmare outrage pitiful putrid rape
        repulsive revolting sickening terrible terrified torment torture tragedy tragic unwatchable vomit worst
        worthless wretched
    """,
}

VALENCE: dict[str, float] = {
    word: value for value, words in _BY_STRENGTH.items() for word in words.split()
} | {
    ":)": 2.0,
    ":-)": 2.0,
    ":d": 2.5,
    ":-d": 2.5,
    ";)": 1.0,
    ";-)": 1.0,
    "<3": 2.5,
    ":(": -2.0,
    ":-(": -2.0,
    ":'(": -2.5,
    ":/": -1.0,
    ":-/": -1.0,
}

_NEGATIONS = """
    no not never none nobody nothing nowhere neither nor without hardly barely scarcely rarely seldom lacks cannot
    cant dont doesnt didnt isnt arent wasnt werent wont wouldnt couldnt shouldnt hasnt havent hadnt aint
"""
NEGATIONS = frozenset(_NEGATIONS.split())

_STRENGTHENING = """
    absolutely amazingly awfully completely deeply enormously entirely especially exceptionally extremely fully
    genuinely greatly highly hugely incredibly insanely intensely more most particularly purely quite really
    remarkably seriously so super terribly thoroughly too totally tremendously truly unbelievably utterly very wildly
"""
_WEAKENING = (
    "almost barely fairly hardly kinda less mildly moderately partly scarcely slightly somewhat sorta"
)

# What a word does to the strength of the word right after it.
INTENSIFIERS = dict.fromkeys(_STRENGTHENING.split(), 0.3) | dict.fromkeys(_WEAKENING.split(), -0.3)
