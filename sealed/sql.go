package sealed

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
)

// Both databases number parameters by their first occurrence. A row is the fence of an erased subject: it stays, without the key.
const (
	createKeys = `create table if not exists sealed_keys (
		subject text   not null primary key,
		id      text   not null, -- of the key
		box     text   not null, -- the key, encrypted by the master key; empty once it was erased
		erased  bigint not null  -- microseconds since 1970; 0 if it was not
	)`
	createMaster = `create table if not exists sealed_master (
		id  integer not null primary key,
		box text    not null -- a text that the master key has encrypted
	)`
	insertMaster = "insert into sealed_master (id, box) values (1, $1) on conflict do nothing"
	selectMaster = "select box from sealed_master where id = 1"
	selectKey    = "select id, box, erased from sealed_keys where subject = $1"
	insertKey    = "insert into sealed_keys (subject, id, box, erased) values ($1, $2, $3, 0) on conflict do nothing"
	eraseKey     = `insert into sealed_keys (subject, id, box, erased) values ($1, '', '', $2)
		on conflict (subject) do update set box = '', erased = excluded.erased where sealed_keys.erased = 0`

	isPostgres       = "select version()" // SQLite has no such function
	hasSQLiteEvents  = "select exists (select 1 from sqlite_master where type = 'table' and name = 'es_events')"
	hasPostgresStore = `select exists (select 1 from pg_catalog.pg_class e join pg_catalog.pg_class f on f.relnamespace = e.relnamespace
		where e.relname = 'events' and f.relname = 'fences' and e.relkind = 'r' and f.relkind = 'r')`
)

// sqlKeys are the keys in a database.
type sqlKeys struct {
	db     *sql.DB
	master [keySize]byte
	sqlite bool
}

// SQLKeys returns keys that are kept in a SQLite or Postgres database, encrypted by a master key. It creates its tables, sealed_keys and
// sealed_master, if they are missing; it then needs the right to create them, and otherwise to select, insert and update.
//
// The database must not be that of the log, because a backup of both would have the values with their keys: a database with a log is refused.
// Give it backups of its own that are kept for a short time, as an older one has keys that were erased since; see [Enforce]. Keep the master key
// in neither database. A master key other than the one that the database was made with is refused.
//
// Every call asks the database, so an erased subject is erased in all processes at once. Errors of the database wrap [es.ErrUnavailable].
func SQLKeys(ctx context.Context, db *sql.DB, master [32]byte) (Keys, error) {
	if master == ([keySize]byte{}) {
		return nil, fmt.Errorf("sealed: %w: the master key is zero: give 32 random bytes", es.ErrInvalid)
	}
	k := &sqlKeys{db: db, master: master}
	if err := k.open(ctx); err != nil {
		return nil, fmt.Errorf("sealed: open the keys: %w", err)
	}
	return k, nil
}

func (k *sqlKeys) open(ctx context.Context) error {
	if err := k.db.PingContext(ctx); err != nil {
		return unavailable(ctx, err)
	}
	var version string
	k.sqlite = k.db.QueryRowContext(ctx, isPostgres).Scan(&version) != nil
	query := hasPostgresStore
	if k.sqlite {
		query = hasSQLiteEvents
	}
	var hasLog bool
	if err := k.db.QueryRowContext(ctx, query).Scan(&hasLog); err != nil {
		return unavailable(ctx, err)
	}
	if hasLog {
		return fmt.Errorf("%w: the database has a log: keep the keys in another, so that no backup has both", es.ErrInvalid)
	}
	var box string
	if err := k.db.QueryRowContext(ctx, selectMaster).Scan(&box); err != nil {
		check, err := lock(k.master[:], []byte(forMaster), forMaster)
		if err != nil {
			return err
		}
		if err := k.create(ctx); err != nil {
			return err
		}
		if err := k.exec(ctx, insertMaster, check); err != nil {
			return err
		}
		if err := k.db.QueryRowContext(ctx, selectMaster).Scan(&box); err != nil {
			return unavailable(ctx, err)
		}
	}
	if _, err := unlock(k.master[:], box, forMaster); err != nil {
		return fmt.Errorf("%w: the master key is not that of the database: give the one that it was made with", es.ErrInvalid)
	}
	return nil
}

// create creates the tables. Several processes may do so at once, and Postgres then lets one fail.
func (k *sqlKeys) create(ctx context.Context) (err error) {
	for range attempts {
		err = nil
		for _, statement := range []string{createKeys, createMaster} {
			if err == nil {
				_, err = k.db.ExecContext(ctx, statement)
			}
		}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return unavailable(ctx, err)
	}
	return nil
}

// Seal implements [Keys].
func (k *sqlKeys) Seal(ctx context.Context, subject string, plain []byte) (id, box string, err error) {
	if err := checkSubject(subject); err != nil {
		return "", "", err
	}
	id, key, err := k.key(ctx, subject)
	if errors.Is(err, ErrUnknownKey) {
		if err = k.make(ctx, subject); err == nil {
			id, key, err = k.key(ctx, subject) // that of another process, if it was faster
		}
	}
	if err != nil {
		return "", "", err
	}
	box, err = lock(key, plain, forValue, subject, id)
	return id, box, err
}

// make makes the key of a subject, unless the subject has one or was erased.
func (k *sqlKeys) make(ctx context.Context, subject string) error {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never returns an error
	id := rand.Text()
	box, err := lock(k.master[:], key, forKey, subject, id)
	if err != nil {
		return err
	}
	return k.exec(ctx, insertKey, subject, id, box)
}

// Open implements [Keys].
func (k *sqlKeys) Open(ctx context.Context, subject, id, box string) ([]byte, error) {
	if err := checkSubject(subject); err != nil {
		return nil, err
	}
	current, key, err := k.key(ctx, subject)
	if err != nil {
		return nil, err
	}
	if current != id {
		return nil, fmt.Errorf("%w %.40q: %s has another one here", ErrUnknownKey, id, subject)
	}
	return unlock(key, box, forValue, subject, id)
}

// key returns the key of a subject.
func (k *sqlKeys) key(ctx context.Context, subject string) (id string, key []byte, err error) {
	var box string
	var erased int64
	switch err := k.db.QueryRowContext(ctx, selectKey, subject).Scan(&id, &box, &erased); {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil, fmt.Errorf("%w: the database has none of %s", ErrUnknownKey, subject)
	case err != nil:
		return "", nil, unavailable(ctx, err)
	case erased != 0:
		return "", nil, fmt.Errorf("%s was %w at %s", subject, ErrErased, time.UnixMicro(erased).UTC().Format(time.RFC3339))
	}
	if key, err = unlock(k.master[:], box, forKey, subject, id); err != nil {
		return "", nil, fmt.Errorf("key %s of %s: %w", id, subject, err)
	}
	return id, key, nil
}

// Erase implements [Keys]. The row that had the key becomes the fence, in one statement.
func (k *sqlKeys) Erase(ctx context.Context, subject string) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	now := time.Now().UnixMicro()
	if !k.sqlite {
		return k.exec(ctx, eraseKey, subject, now)
	}
	conn, err := k.db.Conn(ctx)
	if err != nil {
		return unavailable(ctx, err)
	}
	defer conn.Close()
	var n int64
	if err := conn.QueryRowContext(ctx, "pragma secure_delete = on").Scan(&n); err != nil {
		return unavailable(ctx, err)
	}
	if _, err := conn.ExecContext(ctx, eraseKey, subject, now); err != nil {
		return unavailable(ctx, err)
	}
	_, _ = conn.ExecContext(ctx, "pragma wal_checkpoint(truncate)") // a reader may keep the write-ahead log, where the key is encrypted
	return nil
}

const attempts = 8

// exec runs a statement. It repeats one that a serializable transaction elsewhere has made fail.
func (k *sqlKeys) exec(ctx context.Context, statement string, args ...any) error {
	for i := 1; ; i++ {
		_, err := k.db.ExecContext(ctx, statement, args...)
		if err == nil {
			return nil
		}
		var coded interface{ SQLState() string }
		if i == attempts || ctx.Err() != nil || !errors.As(err, &coded) || coded.SQLState() != "40001" && coded.SQLState() != "40P01" {
			return unavailable(ctx, err)
		}
	}
}

// unavailable marks an error of the database as not the fault of the value.
func unavailable(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return cause.Of(ctx, ended)
	}
	return fmt.Errorf("database of the keys: %w: %w", es.ErrUnavailable, err)
}
