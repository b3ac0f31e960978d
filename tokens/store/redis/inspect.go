package redis

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// inspect checks that this Redis is suitable: it responds and can be written
// to, it does not evict records, and its records have a known format.
// A Redis with a half-finished import is suitable only for another one.
// With readOnly only the format is checked.
func (s *Store) inspect(ctx context.Context, forImport, readOnly bool) error {
	if readOnly {
		return s.checkFormat(ctx, false, true)
	}
	if err := s.Ping(ctx); err != nil {
		return err
	}
	if err := s.forEachServer(ctx, s.inspectServer); err != nil {
		return err
	}
	return s.checkFormat(ctx, forImport, false)
}

// checkFormat compares the version of the stored format, or writes it into an
// empty Redis unless readOnly is set.
func (s *Store) checkFormat(ctx context.Context, forImport, readOnly bool) error {
	stored, err := s.client.Get(ctx, s.formatKey).Result()
	if errors.Is(err, goredis.Nil) {
		if readOnly {
			return nil
		}
		// NX: another process may write it concurrently.
		if err := s.client.SetNX(ctx, s.formatKey, format, 0).Err(); err != nil {
			return s.convertError(ctx, err)
		}
		stored, err = s.client.Get(ctx, s.formatKey).Result()
	}
	if err != nil {
		return s.convertError(ctx, err)
	}
	if stored == importing {
		if forImport {
			return nil
		}
		return s.withName(errUnfinished)
	}
	if n, err := strconv.Atoi(stored); err != nil || n < oldestFormat || n > format {
		return s.withName(fmt.Errorf("%w: its records have format %.20q, this wxproxy knows %d: "+
			"a newer wxproxy wrote them", store.ErrCorrupt, stored, format))
	}
	return nil
}

// Upgrade implements [store.Upgrader].
func (s *Store) Upgrade(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	err := upgradeScript.Run(ctx, s.client, []string{s.formatKey}, format).Err()
	return s.convertError(ctx, err)
}

// forEachServer calls f for every server that is written to.
func (s *Store) forEachServer(
	ctx context.Context, f func(context.Context, *goredis.Client) error,
) error {
	switch c := s.client.(type) {
	case *goredis.ClusterClient:
		return c.ForEachMaster(ctx, f)
	case *goredis.Client:
		return f(ctx, c)
	}
	panic("BUG: unknown type of Redis client")
}

// inspectServer checks the settings of one server. Settings that this user may
// not read are not checked, because managed services forbid CONFIG.
func (s *Store) inspectServer(ctx context.Context, c *goredis.Client) error {
	info, err := s.serverInfo(ctx, c)
	if err != nil {
		return err
	}
	// One by one: some managed services allow CONFIG for some settings only.
	for _, name := range []string{"maxmemory", "maxmemory-policy", "save", "appendonly"} {
		if config, err := c.ConfigGet(ctx, name).Result(); err == nil {
			info["config "+name] = config[name]
		}
	}
	if info["cluster_enabled"] == "1" && s.topology != cluster {
		return s.withName(errors.New(codeMessages["MOVED"]))
	}
	// CONFIG and INFO have different names for the same settings. If neither
	// shows one, assume that it is suitable.
	limit := cmp.Or(info["config maxmemory"], info["maxmemory"], "0")
	policy := cmp.Or(info["config maxmemory-policy"], info["maxmemory_policy"], "noeviction")
	if limit != "0" && policy != "noeviction" {
		return s.withName(fmt.Errorf("it evicts records when its memory is full "+
			"(maxmemory-policy %s), and refresh tokens cannot be replaced: "+
			"set maxmemory-policy noeviction, and do not share it with a cache", policy))
	}
	saves, known := info["config save"]
	appendOnly := info["config appendonly"] == "yes" || info["aof_enabled"] == "1"
	if known && saves == "" && !appendOnly {
		s.warn(s.name + " has no persistence: after it restarts, " +
			"all accounts must be read from WeChat again; set appendonly yes")
	}
	return nil
}

// serverInfo returns the fields of INFO, or none if this user may not call it.
func (s *Store) serverInfo(ctx context.Context, c *goredis.Client) (map[string]string, error) {
	fields := map[string]string{}
	info, err := c.Info(ctx).Result()
	if err != nil {
		if _, isReply := replyCode(err); isReply {
			return fields, nil
		}
		return nil, s.convertError(ctx, err)
	}
	for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}
