package tokens

import (
	"context"
	"math/rand/v2"
	"strings"
)

const (
	// maxConfirmations is how many accounts that are no longer listed are asked
	// about, one by one, in one comparison. The rest waits for the next.
	maxConfirmations = 1000
	// Of more than maxUnconfirmed accounts, and more than maxUnconfirmedPercent
	// of all, an operator has to confirm that they are gone: perhaps the list
	// is that of another component, or WeChat is mistaken.
	maxUnconfirmed        = 20
	maxUnconfirmedPercent = 5
	// progressRecords is how many records are read within progressTimeout.
	progressRecords = 4096
)

// needsConfirmation reports whether an operator has to confirm that gone of
// active accounts revoked their authorization.
func needsConfirmation(gone, active int) bool {
	return gone > maxUnconfirmed && gone*100 > active*maxUnconfirmedPercent
}

// missingAccount is an account that is not on WeChat's list, and its record.
type missingAccount struct {
	appid string
	acc   *account
}

// revokeMissing marks accounts as revoked that WeChat does not list, and
// returns how many are not listed. It asks about each of them first: the list
// is read page by page, and changes meanwhile.
func (c *comparison) revokeMissing(ctx context.Context) (missing int, err error) {
	candidates, missing, err := c.missing(ctx)
	if err != nil {
		return missing, err
	}
	var gone []missingAccount
	for _, m := range candidates {
		_, authorized, err := c.component.queryAuthorizer(ctx, m.appid)
		if err != nil {
			return missing, err
		}
		if !authorized {
			gone = append(gone, m)
		}
		c.progress()
	}
	// Candidates are a random sample, if there are too many to ask about all.
	total := len(gone) * missing / max(len(candidates), 1)
	if active := c.result.Listed + missing; !c.confirm && needsConfirmation(total, active) {
		c.result.Held = total
		c.log.Error("unusually many accounts are unknown to WeChat: none was marked as revoked; "+
			"wxproxy accounts sync --confirm does so", "gone", total, "of", active)
		return missing, nil
	}
	for _, m := range gone {
		if err := c.accounts.confirmRevoked(ctx, m.appid, m.acc); err != nil {
			return missing, err
		}
		c.result.Revoked++
		c.progress()
	}
	return missing, nil
}

// missing returns how many authorizers with a record are not listed, and
// maxConfirmations of them at most, which are picked at random.
func (c *comparison) missing(ctx context.Context) (picked []missingAccount, n int, err error) {
	read := 0
	err = c.store.List(ctx, accountPrefix, "", func(key string, raw []byte) bool {
		if read++; read%progressRecords == 0 {
			c.progress()
		}
		appid := strings.TrimPrefix(key, accountPrefix)
		if c.listed.has(appid) || c.kind(appid) != Authorizer {
			return true
		}
		acc, ok := decodeOrMove[account](c.store, key, raw)
		if !ok || acc.IsRevoked || acc.Kind != Authorizer.String() ||
			acc.issuedSince(c.began, c.now()) { // it was renewed since, so it is authorized
			return true
		}
		n++
		m := missingAccount{strings.Clone(appid), acc}
		if len(picked) < maxConfirmations {
			picked = append(picked, m)
		} else if i := rand.IntN(n); i < maxConfirmations {
			picked[i] = m
		}
		return true
	})
	return picked, n, err
}
