BEGIN TRANSACTION;
CREATE TABLE assignments (
	id INTEGER NOT NULL, 
	item INTEGER NOT NULL, 
	rater INTEGER NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	shown TEXT NOT NULL, 
	opened DOUBLE NOT NULL, 
	expires DOUBLE NOT NULL, 
	draft TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT never_twice_to_one_rater UNIQUE (item, rater), 
	FOREIGN KEY(item) REFERENCES items (id), 
	FOREIGN KEY(rater) REFERENCES raters (id)
);
INSERT INTO "assignments" VALUES(1,1,1,'voted','[1,0]',1700000000.0,1700000600.0,'');
INSERT INTO "assignments" VALUES(2,2,1,'voted','[2,0,1]',1700000000.0,1700000600.0,'');
INSERT INTO "assignments" VALUES(3,3,1,'open','[]',1700000000.0,1700000600.0,'It is');
INSERT INTO "assignments" VALUES(4,1,2,'voted','[0,1]',1700000000.0,1700000600.0,'');
CREATE TABLE exports (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	format VARCHAR(20) NOT NULL, 
	rows INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "exports" VALUES(1,'/tmp/x.jsonl','comparisons','trl',1,'0000000000000000000000000000000000000000000000000000000000000000',1700000000.0);
CREATE TABLE item_samples (
	item INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	sample INTEGER NOT NULL, 
	PRIMARY KEY (item, place), 
	FOREIGN KEY(item) REFERENCES items (id), 
	FOREIGN KEY(sample) REFERENCES samples (id)
);
INSERT INTO "item_samples" VALUES(1,0,1);
INSERT INTO "item_samples" VALUES(1,1,2);
INSERT INTO "item_samples" VALUES(2,0,3);
INSERT INTO "item_samples" VALUES(2,1,4);
INSERT INTO "item_samples" VALUES(2,2,5);
INSERT INTO "item_samples" VALUES(4,0,1);
CREATE TABLE items (
	id INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	prompt INTEGER NOT NULL, 
	overlap INTEGER NOT NULL, 
	taken INTEGER NOT NULL, 
	gold TEXT, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT never_over_assigned CHECK (taken >= 0 AND taken <= overlap), 
	UNIQUE (hash), 
	FOREIGN KEY(prompt) REFERENCES prompts (id)
);
INSERT INTO "items" VALUES(1,'22a155376c44db32b1ca8eb6db6be625ea9f20208695caef4b4ee1d57c3e6bf5','comparison',1,2,2,'{"choice":"left"}',1700000000.0);
INSERT INTO "items" VALUES(2,'415257e7064d0de3d4a29db90aecc12d4dcd6c8dbde021a0cccc866a9c4c47b3','ranking',2,1,1,NULL,1700000000.0);
INSERT INTO "items" VALUES(3,'36066c8ed59c931f5613bf0bb007290b6e1dd5ebfb5f91029ec24921135aab74','demonstration',1,1,1,NULL,1700000000.0);
INSERT INTO "items" VALUES(4,'b5b5e4e4584e25a366d093b728eb7d1e6df75f0a1ea053ce6465a96cc3b7ba44','rating',1,1,0,NULL,1700000000.0);
CREATE TABLE meta (
	"key" VARCHAR(200) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('version','1');
INSERT INTO "meta" VALUES('guidelines','Be fair.');
CREATE TABLE prompts (
	id INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	text_hash VARCHAR(64) NOT NULL, 
	text TEXT NOT NULL, 
	columns TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);
INSERT INTO "prompts" VALUES(1,'d8773cba3557b95eac90cd3a0ac0cb57269762fc939c3a253e81c12dd6713170','643b33561b99fabda3a084b5d01851d9ad866dc38ee00cfad84682f0178be42e','What is 2 + 2?','{"answer":"4"}');
INSERT INTO "prompts" VALUES(2,'cfbcc1c97cd3e7407a2bef81796521e983ef9b212c7e9193986c6f91ced98321','447222ac2a565ade1369f792c1f71bc0ae1467b1bcd801826d7162607036889b','"Say\u0000it"','{}');
CREATE TABLE raters (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	token_hash VARCHAR(64), 
	organiser BOOLEAN NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name), 
	UNIQUE (token_hash)
);
INSERT INTO "raters" VALUES(1,'Ann','79dd5e3003c382e7b46726dee9af7b5d66c372d942ac8becc5d4559734d00293',1,1700000000.0);
INSERT INTO "raters" VALUES(2,'Bob',NULL,0,1700000000.0);
CREATE TABLE samples (
	id INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	prompt INTEGER NOT NULL, 
	response TEXT NOT NULL, 
	origin TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (hash), 
	FOREIGN KEY(prompt) REFERENCES prompts (id)
);
INSERT INTO "samples" VALUES(1,'350dd47f1f0bafa57de5ec73941afbca935b857bed3cfdfe8f9af226796167bb',1,'Four.','{"model":"abc","sampling":{"temperature":0.7},"seed":0}');
INSERT INTO "samples" VALUES(2,'ff473c71fafbf3fe1607a82baff97f94dc3d863a9e1e66697bc6f2fe4d28953f',1,'Five.','{"model":"abc","sampling":{"temperature":0.7},"seed":1}');
INSERT INTO "samples" VALUES(3,'e4b144997d8086c1946268590106aa923806d45c42961ea9d327d7f3b520e3ed',2,'a','{"model":"","sampling":{},"seed":null}');
INSERT INTO "samples" VALUES(4,'84baefecc62ea5c8204b7ba52ea8b0d6eb6fc259f6a2c820e57333bd852bbadf',2,'b','{"model":"","sampling":{},"seed":null}');
INSERT INTO "samples" VALUES(5,'dd476933f7f140e533dd767178fc43e597e6320614358c99c9c6737b3d848482',2,'c','{"model":"","sampling":{},"seed":null}');
CREATE TABLE votes (
	id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	assignment INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	answer TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	seconds DOUBLE, 
	created DOUBLE NOT NULL, 
	supersedes INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE ("key"), 
	FOREIGN KEY(assignment) REFERENCES assignments (id), 
	UNIQUE (supersedes), 
	FOREIGN KEY(supersedes) REFERENCES votes (id)
);
INSERT INTO "votes" VALUES(1,'a1',1,'comparison','{"choice":"left"}','hm',3.5,1700000000.0,NULL);
INSERT INTO "votes" VALUES(2,'a2',1,'undo','{}','',NULL,1700000000.0,1);
INSERT INTO "votes" VALUES(3,'a3',1,'comparison','{"choice":"right"}','right',2.5,1700000000.0,NULL);
INSERT INTO "votes" VALUES(4,'a4',2,'ranking','{"ranks":[2,1,2]}','',NULL,1700000000.0,NULL);
INSERT INTO "votes" VALUES(5,'b1',4,'comparison','{"choice":"tie"}','',NULL,1700000000.0,NULL);
CREATE INDEX ix_prompts_text_hash ON prompts (text_hash);
CREATE INDEX ix_samples_prompt ON samples (prompt);
CREATE INDEX items_with_room ON items (id) WHERE taken < overlap;
CREATE INDEX assignments_of_rater ON assignments (rater, state, item);
CREATE INDEX assignments_open ON assignments (expires) WHERE state = 'open';
CREATE INDEX ix_votes_assignment ON votes (assignment);
COMMIT;
