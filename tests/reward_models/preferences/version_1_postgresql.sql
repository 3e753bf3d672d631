BEGIN;
CREATE TABLE exports (
	id SERIAL NOT NULL, 
	path TEXT NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	format VARCHAR(20) NOT NULL, 
	rows INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE meta (
	key VARCHAR(200) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (key)
);
CREATE TABLE prompts (
	id SERIAL NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	text_hash VARCHAR(64) NOT NULL, 
	text TEXT NOT NULL, 
	columns TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);
CREATE INDEX ix_prompts_text_hash ON prompts (text_hash);
CREATE TABLE raters (
	id SERIAL NOT NULL, 
	name TEXT NOT NULL, 
	token_hash VARCHAR(64), 
	organiser BOOLEAN NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name), 
	UNIQUE (token_hash)
);
CREATE TABLE items (
	id SERIAL NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	prompt INTEGER NOT NULL, 
	overlap INTEGER NOT NULL, 
	taken INTEGER NOT NULL, 
	gold TEXT, 
	created DOUBLE PRECISION NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT never_over_assigned CHECK (taken >= 0 AND taken <= overlap), 
	UNIQUE (hash), 
	FOREIGN KEY(prompt) REFERENCES prompts (id)
);
CREATE INDEX items_with_room ON items (id) WHERE taken < overlap;
CREATE TABLE samples (
	id SERIAL NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	prompt INTEGER NOT NULL, 
	response TEXT NOT NULL, 
	origin TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (hash), 
	FOREIGN KEY(prompt) REFERENCES prompts (id)
);
CREATE INDEX ix_samples_prompt ON samples (prompt);
CREATE TABLE assignments (
	id SERIAL NOT NULL, 
	item INTEGER NOT NULL, 
	rater INTEGER NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	shown TEXT NOT NULL, 
	opened DOUBLE PRECISION NOT NULL, 
	expires DOUBLE PRECISION NOT NULL, 
	draft TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT never_twice_to_one_rater UNIQUE (item, rater), 
	FOREIGN KEY(item) REFERENCES items (id), 
	FOREIGN KEY(rater) REFERENCES raters (id)
);
CREATE INDEX assignments_of_rater ON assignments (rater, state, item);
CREATE INDEX assignments_open ON assignments (expires) WHERE state = 'open';
CREATE TABLE item_samples (
	item INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	sample INTEGER NOT NULL, 
	PRIMARY KEY (item, place), 
	FOREIGN KEY(item) REFERENCES items (id), 
	FOREIGN KEY(sample) REFERENCES samples (id)
);
CREATE TABLE votes (
	id SERIAL NOT NULL, 
	key TEXT NOT NULL, 
	assignment INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	answer TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	seconds DOUBLE PRECISION, 
	created DOUBLE PRECISION NOT NULL, 
	supersedes INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (key), 
	FOREIGN KEY(assignment) REFERENCES assignments (id), 
	UNIQUE (supersedes), 
	FOREIGN KEY(supersedes) REFERENCES votes (id)
);
CREATE INDEX ix_votes_assignment ON votes (assignment);
INSERT INTO exports ("id", "path", "kind", "format", "rows", "sha256", "created") VALUES (1, '/tmp/x.jsonl', 'comparisons', 'trl', 1, '0000000000000000000000000000000000000000000000000000000000000000', 1700000000.0);
SELECT setval(pg_get_serial_sequence('exports', 'id'), 1);
INSERT INTO meta ("key", "value") VALUES ('guidelines', 'Be fair.');
INSERT INTO meta ("key", "value") VALUES ('version', '1');
INSERT INTO prompts ("id", "hash", "text_hash", "text", "columns") VALUES (1, 'd8773cba3557b95eac90cd3a0ac0cb57269762fc939c3a253e81c12dd6713170', '643b33561b99fabda3a084b5d01851d9ad866dc38ee00cfad84682f0178be42e', 'What is 2 + 2?', '{"answer":"4"}');
INSERT INTO prompts ("id", "hash", "text_hash", "text", "columns") VALUES (2, 'cfbcc1c97cd3e7407a2bef81796521e983ef9b212c7e9193986c6f91ced98321', '447222ac2a565ade1369f792c1f71bc0ae1467b1bcd801826d7162607036889b', '"Say\u0000it"', '{}');
SELECT setval(pg_get_serial_sequence('prompts', 'id'), 2);
INSERT INTO raters ("id", "name", "token_hash", "organiser", "created") VALUES (1, 'Ann', '79dd5e3003c382e7b46726dee9af7b5d66c372d942ac8becc5d4559734d00293', true, 1700000000.0);
INSERT INTO raters ("id", "name", "token_hash", "organiser", "created") VALUES (2, 'Bob', NULL, false, 1700000000.0);
SELECT setval(pg_get_serial_sequence('raters', 'id'), 2);
INSERT INTO items ("id", "hash", "kind", "prompt", "overlap", "taken", "gold", "created") VALUES (1, '22a155376c44db32b1ca8eb6db6be625ea9f20208695caef4b4ee1d57c3e6bf5', 'comparison', 1, 2, 2, '{"choice":"left"}', 1700000000.0);
INSERT INTO items ("id", "hash", "kind", "prompt", "overlap", "taken", "gold", "created") VALUES (2, '415257e7064d0de3d4a29db90aecc12d4dcd6c8dbde021a0cccc866a9c4c47b3', 'ranking', 2, 1, 1, NULL, 1700000000.0);
INSERT INTO items ("id", "hash", "kind", "prompt", "overlap", "taken", "gold", "created") VALUES (3, '36066c8ed59c931f5613bf0bb007290b6e1dd5ebfb5f91029ec24921135aab74', 'demonstration', 1, 1, 1, NULL, 1700000000.0);
INSERT INTO items ("id", "hash", "kind", "prompt", "overlap", "taken", "gold", "created") VALUES (4, 'b5b5e4e4584e25a366d093b728eb7d1e6df75f0a1ea053ce6465a96cc3b7ba44', 'rating', 1, 1, 0, NULL, 1700000000.0);
SELECT setval(pg_get_serial_sequence('items', 'id'), 4);
INSERT INTO samples ("id", "hash", "prompt", "response", "origin") VALUES (1, '350dd47f1f0bafa57de5ec73941afbca935b857bed3cfdfe8f9af226796167bb', 1, 'Four.', '{"model":"abc","sampling":{"temperature":0.7},"seed":0}');
INSERT INTO samples ("id", "hash", "prompt", "response", "origin") VALUES (2, 'ff473c71fafbf3fe1607a82baff97f94dc3d863a9e1e66697bc6f2fe4d28953f', 1, 'Five.', '{"model":"abc","sampling":{"temperature":0.7},"seed":1}');
INSERT INTO samples ("id", "hash", "prompt", "response", "origin") VALUES (3, 'e4b144997d8086c1946268590106aa923806d45c42961ea9d327d7f3b520e3ed', 2, 'a', '{"model":"","sampling":{},"seed":null}');
INSERT INTO samples ("id", "hash", "prompt", "response", "origin") VALUES (4, '84baefecc62ea5c8204b7ba52ea8b0d6eb6fc259f6a2c820e57333bd852bbadf', 2, 'b', '{"model":"","sampling":{},"seed":null}');
INSERT INTO samples ("id", "hash", "prompt", "response", "origin") VALUES (5, 'dd476933f7f140e533dd767178fc43e597e6320614358c99c9c6737b3d848482', 2, 'c', '{"model":"","sampling":{},"seed":null}');
SELECT setval(pg_get_serial_sequence('samples', 'id'), 5);
INSERT INTO assignments ("id", "item", "rater", "state", "shown", "opened", "expires", "draft") VALUES (1, 1, 1, 'voted', '[1,0]', 1700000000.0, 1700000600.0, '');
INSERT INTO assignments ("id", "item", "rater", "state", "shown", "opened", "expires", "draft") VALUES (2, 2, 1, 'voted', '[2,0,1]', 1700000000.0, 1700000600.0, '');
INSERT INTO assignments ("id", "item", "rater", "state", "shown", "opened", "expires", "draft") VALUES (3, 3, 1, 'open', '[]', 1700000000.0, 1700000600.0, 'It is');
INSERT INTO assignments ("id", "item", "rater", "state", "shown", "opened", "expires", "draft") VALUES (4, 1, 2, 'voted', '[0,1]', 1700000000.0, 1700000600.0, '');
SELECT setval(pg_get_serial_sequence('assignments', 'id'), 4);
INSERT INTO item_samples ("item", "place", "sample") VALUES (1, 0, 1);
INSERT INTO item_samples ("item", "place", "sample") VALUES (1, 1, 2);
INSERT INTO item_samples ("item", "place", "sample") VALUES (2, 0, 3);
INSERT INTO item_samples ("item", "place", "sample") VALUES (2, 1, 4);
INSERT INTO item_samples ("item", "place", "sample") VALUES (2, 2, 5);
INSERT INTO item_samples ("item", "place", "sample") VALUES (4, 0, 1);
INSERT INTO votes ("id", "key", "assignment", "kind", "answer", "reason", "seconds", "created", "supersedes") VALUES (1, 'a1', 1, 'comparison', '{"choice":"left"}', 'hm', 3.5, 1700000000.0, NULL);
INSERT INTO votes ("id", "key", "assignment", "kind", "answer", "reason", "seconds", "created", "supersedes") VALUES (2, 'a2', 1, 'undo', '{}', '', NULL, 1700000000.0, 1);
INSERT INTO votes ("id", "key", "assignment", "kind", "answer", "reason", "seconds", "created", "supersedes") VALUES (3, 'a3', 1, 'comparison', '{"choice":"right"}', 'right', 2.5, 1700000000.0, NULL);
INSERT INTO votes ("id", "key", "assignment", "kind", "answer", "reason", "seconds", "created", "supersedes") VALUES (4, 'a4', 2, 'ranking', '{"ranks":[2,1,2]}', '', NULL, 1700000000.0, NULL);
INSERT INTO votes ("id", "key", "assignment", "kind", "answer", "reason", "seconds", "created", "supersedes") VALUES (5, 'b1', 4, 'comparison', '{"choice":"tie"}', '', NULL, 1700000000.0, NULL);
SELECT setval(pg_get_serial_sequence('votes', 'id'), 5);
COMMIT;
